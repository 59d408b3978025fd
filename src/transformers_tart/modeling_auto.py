"""Composes and loads without saying what a backbone reads: its class tells."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.towers import loaded_classes_of, modalities_of
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.files import check_whole
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.loading.auto import find_model
from transformers_tart.loading.download import HUB, select
from transformers_tart.modeling_tart import TartPreTrainedModel


def compose_any(name_or_model: str | os.PathLike | PreTrainedModel, **kwargs: Any) -> TartPreTrainedModel:
    r"""
    Compose a backbone of any modality with a reasoner.

    Args:
        name_or_model (`str`, `Path` or `PreTrainedModel`), kwargs:
            As in [`TartPreTrainedModel.from_backbone`].

    Returns:
        [`TartForSequenceClassification`], [`TartForImageClassification`] or [`TartForAudioClassification`]: of a
        backbone that reads several things, for images before audio, and for audio before texts.
    """
    name_or_model = unwrap(name_or_model)
    if isinstance(name_or_model, PreTrainedModel):
        config_class = _choose_config(modalities_of(type(name_or_model)))
        return _model_class(config_class).from_backbone(name_or_model, **kwargs)
    reference = BackboneReference.of(name_or_model, kwargs.get("revision"), kwargs.get("subfolder"))
    hub = {**select(kwargs, HUB), "revision": None, **reference.place}
    config_class = _choose_for(find_model(reference.path, **hub).config)
    return _model_class(config_class).from_backbone(name_or_model, **kwargs)


def backbone_modality(config: PreTrainedConfig) -> Modality:
    """Return the modality for which the backbone of a config is composed."""
    return _choose_for(config).modality


def _choose_for(config: PreTrainedConfig) -> type[TartConfig]:
    known = loaded_classes_of(config)
    return _choose_config(modalities_of(known[0]) if len(known) == 1 else (TEXT,))


def _model_class(config_class: type[TartConfig]) -> type[TartPreTrainedModel]:
    found: Any = AutoModel._model_mapping[config_class]
    return found


def _choose_config(reads: tuple[str, ...]) -> type[TartConfig]:
    """Return the config class for a backbone that reads some modalities; texts come last."""
    classes = _registered_configs(TartConfig)
    return next((each for each in classes if each.modality in reads and not each.modality.is_tokenized), TartConfig)


def _registered_configs(base: type[TartConfig]) -> list[type[TartConfig]]:
    """Return a config class and its subclasses, in definition order, as far as they have model classes."""
    below = [found for each in base.__subclasses__() for found in _registered_configs(each)]
    return [base, *below] if base in AutoModel._model_mapping else below


class PipelineModel:
    """What `pipeline("tart-classification", model=<name>)` loads: a TART repository, or any backbone, composed.

    The pipeline itself loads it, with `backbone=...` where that was given to `pipeline`. What goes wrong is then
    raised as it is: transformers would put it behind a list of all it tried, and try other classes.
    """

    # transformers asks for the device of a model that has no device map
    hf_device_map: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str, arguments: dict[str, Any]):
        self.name, self.arguments = name, arguments

    @classmethod
    def from_pretrained(cls, name: str, config: PreTrainedConfig | None = None, **kwargs: Any) -> Any:
        """Load by the kind of repository that `config` describes; for `pipeline`, leave that to [`load`]."""
        if kwargs.pop("_from_pipeline", None) is not None:
            return cls(name, kwargs if config is None else {**kwargs, "config": config})
        return load_any(name, config, **kwargs)

    def load(self, **more: Any) -> TartPreTrainedModel:
        """Load the model.

        Args:
            more:
                Arguments beside those that `pipeline` passed on, such as `backbone`.
        """
        return load_any(self.name, **self.arguments, **more)

    def device_of(self, model: TartPreTrainedModel) -> torch.device | None:
        """The device on which a device map has put all of a loaded model, `None` without one."""
        is_placed = self.arguments.get("device_map") is not None and getattr(model, "hf_device_map", None) is None
        return model.device if is_placed else None


def load_any(name: str, config: PreTrainedConfig | None = None, **kwargs: Any) -> TartPreTrainedModel:
    r"""
    Load a TART repository, or compose a backbone.

    Args:
        name (`str`):
            Hub id or folder.
        config (`PreTrainedConfig`, *optional*):
            Its configuration, where it is known.
        kwargs:
            As in [`TartPreTrainedModel.from_pretrained`] or [`TartPreTrainedModel.from_backbone`].

    Raises:
        ValueError: When `backbone` is given with a repository that is a backbone itself.
    """
    check_whole(name)
    if config is None:
        config = find_model(name, **select(kwargs, HUB)).config
    if isinstance(config, TartConfig):
        return _model_class(type(config)).from_pretrained(name, config=config, **kwargs)
    if kwargs.pop("backbone", None) is not None:
        raise ValueError(
            f'{name} holds a model of type "{config.model_type}", not a TART task, so it is the backbone; leave '
            "backbone= out, or give the task as model=..."
        )
    if os.path.isdir(name):
        name = os.path.abspath(name)  # transformers took the config from the folder of this name
    return compose_any(name, **kwargs)


__all__ = ["PipelineModel", "backbone_modality", "compose_any", "load_any"]
