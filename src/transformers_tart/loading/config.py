"""Configs of TART repositories: loading them, and replacing fields by arguments."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from transformers_tart.checks.arguments import as_source
from transformers_tart.checks.label_names import set_config_names
from transformers_tart.configuration_tart import EMBEDDING_FIELDS, TartBaseConfig
from transformers_tart.inputs.views import VIEW_ARGUMENTS, View, as_views
from transformers_tart.loading.auto import check_files
from transformers_tart.loading.download import explain_damage, take


REFERENCE_FIELDS = ("base_model_name_or_path", "base_model_revision", "base_model_subfolder")


def load_config(
    config_class: Any, name: str, arguments: dict[str, Any], names: tuple[str, ...] | None, hub: dict[str, Any]
) -> tuple[TartBaseConfig, Any]:
    """Load the config of a task, with the fields that arguments replace.

    Args:
        config_class (`type`), name (`str`), hub (`dict`):
            Class of the config, and where it is loaded from.
        arguments (`dict`):
            Arguments of `from_pretrained`; those for the config are removed.
        names (`tuple[str, ...]`, *optional*):
            Names of the classes.

    Returns:
        `tuple`: the config, and views for [`replace_views`] where they are given by name, else `None`.

    Raises:
        ValueError: When the repository holds another model, or a support set that was embedded with other options.
    """
    config = arguments.pop("config", None)
    replaced = take(arguments, (*REFERENCE_FIELDS, *EMBEDDING_FIELDS, *VIEW_ARGUMENTS))
    if not isinstance(config, config_class):
        config = _read_config(config_class, name if config is None else config, **hub)
    if replaced.get("prompt") == "":
        replaced["prompt"] = None
    replaced = config.drop_text_fields(replaced)
    views = _take_views(config, replaced)
    if views is not None and not _has_names(views):
        replaced["views"], views = as_views(views), None
    _check_support_options(config, name, replaced)
    for field, value in replaced.items():
        setattr(config, field, value)
    if names is not None:
        set_config_names(config, names)
    if views is None:
        config.validate()
    return config, views


def replace_views(config: TartBaseConfig, name: str, views: tuple[View, ...]) -> None:
    """Replace the views in the config of a task, unless its support set was embedded with others."""
    _check_support_options(config, name, {"views": views})
    config.views = views
    config.validate()


def _take_views(config: TartBaseConfig, replaced: dict[str, Any]) -> Any:
    """Return the views that are asked for, as `views` or by arguments of version 0.1, which are removed."""
    views = replaced.pop("views", None)
    given = {name: replaced.pop(name) for name in VIEW_ARGUMENTS if replaced.get(name) is not None}
    if not given:
        return views
    if views is not None:
        raise ValueError(f"views and {sorted(given)} are given, which describe a view of their own; give one.")
    single = config.views[0] if config.views is not None and len(config.views) == 1 else View(layers="all")
    changed = replace(single, **given)
    return changed if changed == single else replace(changed, name=None)


def _has_names(views: Any) -> bool:
    return isinstance(views, str) or (isinstance(views, (list, tuple)) and any(isinstance(x, str) for x in views))


def _check_support_options(config: TartBaseConfig, name: str, replaced: Mapping[str, Any]) -> None:
    """Raise a ValueError when a task has a support set that was embedded with other options."""
    options = config.embedding_options
    asked = replace(options, **{key: replaced[key] for key in EMBEDDING_FIELDS if key in replaced})
    if config.has_support and (differing := options.differences(asked)):
        raise ValueError(
            f"{name} holds a support set that was embedded with other values of {options.differing(asked)}: with "
            f"{differing[0]}, not with {differing[1]}. Load it without them, or compose its backbone again and give "
            "the examples again."
        )


def _read_config(config_class: type[TartBaseConfig], name: Any, **hub: Any) -> TartBaseConfig:
    """Load the config of a TART repository; transformers would take another's with a warning."""
    if isinstance(name, PreTrainedConfig):
        raise ValueError(f'The config is of model type "{name.model_type}", not "{config_class.model_type}".')
    name = as_source(name, "config")
    with explain_damage(name):
        check_files(name, **hub)
        model_type = PreTrainedConfig.get_config_dict(name, **hub)[0].get("model_type")
        if model_type == config_class.model_type:
            return config_class.from_pretrained(name, **hub)
    if model_type == "tart_reasoner":
        raise ValueError(
            f"{name} holds a reasoner alone; load it with TartReasoner.from_pretrained, or compose it with a "
            "backbone: TartForSequenceClassification.from_backbone(backbone, reasoner=...)."
        )
    if str(model_type).startswith("tart"):
        raise ValueError(
            f'{name} holds a TART model of type "{model_type}", not "{config_class.model_type}": load it with '
            "AutoModel.from_pretrained, which finds its class."
        )
    raise ValueError(
        f'{name} holds a model of type "{model_type}", not a TART repository; to use it as a backbone call '
        "TartForSequenceClassification.from_backbone."
    )


__all__ = ["load_config", "replace_views"]
