"""Loads the parts of a TART repository and puts them together.

The parts are loaded apart and composed afterwards: weights cannot be loaded inside a model's constructor, and a
loaded backbone that passes through another `from_pretrained` loses its non-persistent buffers.
"""

import os
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import cached_file, logging

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.reference import EMBEDDED, as_name, check_reference, locate, reference
from transformers_tart.backbones.sentence_encoders import find_sentence_encoder
from transformers_tart.backbones.towers import find_tower, load_tower
from transformers_tart.checks.arguments import as_source
from transformers_tart.checks.label_names import config_names, set_config_names, take_names
from transformers_tart.configuration_tart import EMBEDDING_FIELDS, TartConfig
from transformers_tart.errors import BackboneNotFoundError, CorruptFileError
from transformers_tart.files import check_whole
from transformers_tart.hub.push import explain_failures, pin_revision
from transformers_tart.loading.arguments import check_loading
from transformers_tart.loading.auto import check_files, explain_damage
from transformers_tart.loading.checksums import check_sums
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.support import SUPPORT_FILE, SupportSet, describe_differences


logger = logging.get_logger(__name__)

DEFAULT_REASONER = "kernel"
BACKBONE_FOLDER = "backbone"

SHARED = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
REPOSITORY = ("revision", "subfolder")
TRUST = "trust_remote_code"  # is for the repository of the backbone alone
# What Auto classes and pipelines pass along for themselves.
AUTO_CLASS_KWARGS = ("_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs", "code_revision")
CONFIG_FIELDS = ("base_model_name_or_path", "base_model_revision", "base_model_subfolder", *EMBEDDING_FIELDS)


def load_default_reasoner() -> TartReasoner:
    """The reasoner inside this package."""
    return TartReasoner.from_pretrained(DEFAULT_REASONER)


def move_to_output_device(reasoner: TartReasoner, backbone: PreTrainedModel) -> TartReasoner:
    """Move a reasoner to the device where the backbone ends, in float32."""
    device_map = getattr(backbone, "hf_device_map", None)
    if device_map is None:
        return reasoner.to(backbone.device)  # type: ignore[arg-type]
    accelerators = [device for device in device_map.values() if device not in ("cpu", "disk")]
    return reasoner.to(accelerators[-1] if accelerators else "cpu")  # type: ignore[arg-type]


def compose(
    cls: Any,
    name_or_model: str | os.PathLike | PreTrainedModel,
    reasoner: TartReasoner | str | os.PathLike | None,
    embedding: dict[str, Any],
    revision: str | None = None,
    **loading: Any,
) -> Any:
    """Compose a backbone with a reasoner; see [`TartPreTrainedModel.from_backbone`]."""
    check_loading({**embedding, **loading, "revision": revision})
    names = take_names(loading)
    modality = cls.config_class.modality
    name_or_model, checked = unwrap(name_or_model), None
    if isinstance(name_or_model, PreTrainedModel):
        if loading:
            raise ValueError(
                f"The backbone is loaded already, so {sorted(loading)} cannot be applied; pass its name instead."
            )
        backbone, name = _take_tower(name_or_model, modality), name_or_model.name_or_path or None
        if name in EMBEDDED:
            name = os.path.abspath(name)  # transformers, which knows no such name, has loaded from a folder
    else:
        name = as_name(name_or_model)
        source, source_revision = locate(name, revision)
        with explain_failures(name):
            backbone, embedding = _load_named(source, modality, source_revision, embedding, loading)
        checked = BackboneDigest.of(backbone)
    if not isinstance(reasoner, TartReasoner):
        reasoner = load_default_reasoner() if reasoner is None else TartReasoner.from_pretrained(reasoner)
    usual = {
        "pooling": "mean",
        "normalize": False,
        "layers": -1 if reasoner.config.projection == "whitened_pca" else "all",
    }
    embedding = {**embedding, **{field: value for field, value in usual.items() if embedding[field] is None}}
    name, revision = (None, revision) if name is None else reference(name, revision)
    # a copy: a config that is shared with a live model is changed by the wrapper
    fields = {key: value for key, value in backbone.config.to_dict().items() if key != "_name_or_path"}
    config = cls.config_class(
        **{cls.config_class.backbone_key: fields},
        base_model_name_or_path=name,
        base_model_revision=revision,
        reasoner_config=reasoner.config.to_dict(),
        **embedding,
    )
    if names is not None:
        set_config_names(config, names)
    model = cls(config, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    model.hub_arguments = _take(loading, (*SHARED, TRUST))
    model.reference_digest = checked
    return model


def load_reference(config: TartConfig, dtype: torch.dtype, **shared: Any) -> PreTrainedModel:
    """Load the backbone that a config refers to, on the CPU.

    Raises:
        OSError, ValueError: When it cannot be loaded.
    """
    source, revision = locate(str(config.base_model_name_or_path), config.base_model_revision)
    place = {"revision": revision, **_inside(config.base_model_subfolder)}
    with explain_failures(source):
        return load_tower(source, config.modality, **place, **shared, dtype=dtype)


def _load_named(
    source: str, modality: str, revision: str | None, embedding: dict[str, Any], loading: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A backbone, and the fields of the config that say how it embeds and where it is in its repository.

    A sentence encoder completes what is not given.
    """
    hub = {key: loading[key] for key in (*SHARED, "subfolder") if loading.get(key) is not None}
    revision = pin_revision(source, revision, **hub)
    folder, encoder = hub.get("subfolder"), None
    if modality == "text":
        is_told = embedding["pooling"] is not None
        encoder = find_sentence_encoder(source, quiet=is_told, revision=revision, **hub)
    if encoder is not None:
        embedding = encoder.fill(embedding)
        folder = "/".join(part for part in (folder, encoder.path) if part)
    place = _inside(folder)
    backbone = load_tower(source, modality, **{**loading, "revision": revision, **place})
    return backbone, {**embedding, **{f"base_model_{key}": value for key, value in place.items()}}


def _take_tower(model: PreTrainedModel, modality: str) -> PreTrainedModel:
    """What of a loaded model reads one modality; it keeps the device map of the whole."""
    _, below = find_tower(model, modality)
    if hasattr(model, "hf_device_map") and not hasattr(below, "hf_device_map"):
        below.hf_device_map = model.hf_device_map
    return below


def load_composed(cls: Any, name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
    """Load a TART repository; see [`TartPreTrainedModel.from_pretrained`]."""
    name = as_source(name_or_path, "The name of the task")
    check_whole(name)
    check_loading(kwargs)
    with_info = kwargs.pop("output_loading_info", False)
    backbone, config = kwargs.pop("backbone", None), kwargs.pop("config", None)
    for argument in AUTO_CLASS_KWARGS:
        kwargs.pop(argument, None)
    names = take_names(kwargs)
    shared, repository = _take(kwargs, SHARED), _take(kwargs, REPOSITORY)
    repository["revision"] = pin_revision(name, **repository, **shared)
    weights, overrides = _take(kwargs, ("variant", "use_safetensors")), _take(kwargs, CONFIG_FIELDS)
    if not isinstance(config, cls.config_class):
        source = (
            config if isinstance(config, PreTrainedConfig) else as_source(name if config is None else config, "config")
        )
        config = _load_config(cls.config_class, source, **shared, **repository)
    contradicted = [key for key in EMBEDDING_FIELDS if key in overrides and overrides[key] != getattr(config, key)]
    if config.has_support and contradicted:
        raise ValueError(
            f"{name} holds a support set that was embedded with other values of {contradicted}. Load it without them, "
            "or compose its backbone anew and give the examples again."
        )
    for key, value in overrides.items():
        setattr(config, key, value)
    if names is not None:
        set_config_names(config, names)
    config.validate()
    given = unwrap(backbone)
    backbone = _load_backbone(config, name, given, shared, repository, kwargs)
    if given is not None and not isinstance(given, PreTrainedModel):
        config.base_model_name_or_path, config.base_model_revision = reference(as_name(given))
        config.include_backbone = False
    reasoner, info = TartReasoner.from_pretrained(
        name,
        config=config.reasoner,
        key_mapping={r"^reasoner\.": ""},
        output_loading_info=True,
        **weights,
        **shared,
        **repository,
    )
    model = cls(config, *model_args, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    model.repository = {"name": name, **repository}
    model.hub_arguments = {**shared, **_take(kwargs, (TRUST,))}
    if not isinstance(given, PreTrainedModel) and not config.include_backbone:
        model.reference_digest = BackboneDigest.of(backbone)
    if config.has_support:
        _load_support_into(model, name, {**shared, **repository})
        if names is None:  # then the next examples may bring others
            model._names_of_examples = config_names(config)
    if config.sha256 is not None:
        _check_sums(config, name, model.support, {**shared, **repository})
    return (model, info) if with_info else model


def _check_sums(config: TartConfig, name: str, support: SupportSet | None, hub: dict) -> None:
    """Compare the checksums of the config with the files, after what says more precisely what is wrong with them."""
    sums = dict(config.sha256 or {})
    if support is None:
        sums.pop(SUPPORT_FILE, None)
    check_sums(name, sums, **hub)
    config.sha256 = None  # of the files, not of the model, which may change


def _take(kwargs: dict, names: tuple[str, ...]) -> dict:
    """Move the named arguments out; `None` means not given."""
    taken = {name: kwargs.pop(name) for name in names if name in kwargs}
    return {name: value for name, value in taken.items() if value is not None}


def _load_config(config_class: type[TartConfig], name: Any, **hub: Any) -> TartConfig:
    """The config of a TART repository, checked to be one: transformers would take another's with a warning."""
    if isinstance(name, PreTrainedConfig):
        raise ValueError(f'The config is of model type "{name.model_type}", not "{config_class.model_type}".')
    with explain_damage(name):
        check_files(name, **hub)
        fields, _ = PreTrainedConfig.get_config_dict(name, **hub)
    model_type = fields.get("model_type")
    if model_type == "tart_reasoner":
        raise ValueError(
            f"{name} holds a reasoner alone; load it with TartReasoner.from_pretrained, or compose it with a "
            "backbone: TartForSequenceClassification.from_backbone(backbone, reasoner=...)."
        )
    if model_type != config_class.model_type and str(model_type).startswith("tart"):
        raise ValueError(
            f'{name} holds a TART model of type "{model_type}", not "{config_class.model_type}": load it with '
            "AutoModel.from_pretrained, which finds its class."
        )
    if model_type != config_class.model_type:
        raise ValueError(
            f'{name} holds a model of type "{model_type}", not a TART repository; to use it as a backbone call '
            "TartForSequenceClassification.from_backbone."
        )
    with explain_damage(name):
        return config_class.from_pretrained(name, **hub)


def _load_backbone(
    config: TartConfig, name: str, given: Any, shared: dict, repository: dict, loading: dict
) -> PreTrainedModel:
    """The backbone that was given, the one saved with the repository, or the one it refers to."""
    modality = config.modality
    if isinstance(given, PreTrainedModel):
        return _take_tower(given, modality)
    if given is not None:
        name = as_name(given)
        # a support set that was made with an embedded backbone wants the same version of it
        wanted = config.base_model_revision if name in EMBEDDED and name == config.base_model_name_or_path else None
        source = locate(name, wanted)[0]
        # only a copy of a repository in which the backbone is in a folder may have it in one too
        encoder = find_sentence_encoder(source, quiet=True, **shared) if config.base_model_subfolder else None
        return load_tower(source, modality, **_inside(encoder.path if encoder else None), **shared, **loading)
    if config.include_backbone:
        folder = "/".join(part for part in (repository.get("subfolder"), BACKBONE_FOLDER) if part)
        try:
            with explain_failures(name):
                return load_tower(name, modality, **{**repository, "subfolder": folder}, **shared, **loading)
        except CorruptFileError:
            raise
        except (OSError, ValueError) as err:  # without the folder, transformers sees a model of no known type
            raise BackboneNotFoundError(
                f"The config of {name} announces a backbone in {folder}, but it cannot be loaded: {err}\nDownload the "
                "repository again, or pass a copy: from_pretrained(..., backbone=<Hub id, folder or model>)."
            ) from err
    base, revision = config.base_model_name_or_path, config.base_model_revision
    if base is None:
        raise ValueError(f"{name} names no backbone; pass one: backbone=...")
    check_reference(base, name)
    source, source_revision = locate(base, revision)
    try:
        with explain_failures(base):
            place = {"revision": source_revision, **_inside(config.base_model_subfolder)}
            return load_tower(source, modality, **place, **shared, **loading)
    except CorruptFileError:
        raise
    except OSError as err:
        raise BackboneNotFoundError(
            f'The backbone "{base}"{f" at revision {revision}" if revision else ""}, which {name} refers to, cannot '
            f"be loaded: {err}\nIf it has moved or the network is down, pass a copy: from_pretrained(..., "
            "backbone=<Hub id, folder or model>)."
        ) from err


def _inside(folder: str | None) -> dict[str, str]:
    return {"subfolder": folder} if folder else {}


def _load_support_into(model: Any, name: str, hub: dict) -> None:
    """Load the support set of a repository, compared with its config and with the backbone."""
    try:
        path = cached_file(name, SUPPORT_FILE, **hub)
    except OSError as err:
        raise CorruptFileError(
            f"The config of {name} announces a support set, but {SUPPORT_FILE} cannot be loaded: {err}"
        ) from err
    support, config = SupportSet.load(str(path)), model.config
    stored, current = support.options, config.embedding_options
    if stored is not None and (differing := describe_differences(stored, current)):
        raise CorruptFileError(
            f"config.json and {SUPPORT_FILE} of {name} are of two tasks, or one was edited: the support set was "
            f"embedded with {differing[0]}, the config says {differing[1]}. Save the task again from its examples."
        )
    if support.num_labels != config.num_labels:
        raise CorruptFileError(
            f"{SUPPORT_FILE} of {name} has {support.num_labels} classes, id2label of its config.json "
            f"{config.num_labels}. Download the repository again, or save the task again from its examples."
        )
    vocabulary = getattr(model.backbone.get_input_embeddings(), "num_embeddings", None) if support.prompt else None
    if support.prompt is not None and vocabulary is not None and support.prompt.largest_id >= vocabulary:
        raise CorruptFileError(
            f"{SUPPORT_FILE} of {name} has the token id {support.prompt.largest_id}, beyond the {vocabulary} of the "
            "backbone. Download the repository again, or save the task again from its examples."
        )
    if support.digest is None:
        logger.warning_once(
            f"{name} was saved by version 0.1, without a digest of its backbone: whether that is still the same model "
            "is not checked. Save the task again to store one."
        )
        (config.sha256 or {}).pop(SUPPORT_FILE, None)  # which is not the file that was saved with the config
        # by which changes from now on are seen
        support = replace(support, digest=model.backbone_digest(), options=current)
    else:
        support = replace(support, digest=replace(support.digest, name=config.base_model_name_or_path))
    model.set_support(support.to(model.reasoner.device))
    if support.prompt is None:  # a prompt, which takes long to read, is read with the first query
        model.prepare_support()


__all__ = [
    "BACKBONE_FOLDER",
    "compose",
    "load_composed",
    "load_default_reasoner",
    "load_reference",
    "move_to_output_device",
]
