"""Composes and loads without saying what a backbone reads: its class tells."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.reference import as_name, locate
from transformers_tart.backbones.towers import backbone_config, loaded_classes_of, modalities_of
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.files import check_whole
from transformers_tart.loading.auto import HUB
from transformers_tart.modeling_media import TartForAudioClassification, TartForImageClassification
from transformers_tart.modeling_tart import TartForSequenceClassification, TartPreTrainedModel


CLASSES: dict[str, type[TartPreTrainedModel]] = {
    "text": TartForSequenceClassification,
    "image": TartForImageClassification,
    "audio": TartForAudioClassification,
}


def compose_any(name_or_model: str | os.PathLike | PreTrainedModel, **kwargs: Any) -> TartPreTrainedModel:
    r"""
    Compose a backbone of texts, images or audio with a reasoner.

    Args:
        name_or_model (`str`, `Path` or `PreTrainedModel`), kwargs:
            As in [`TartPreTrainedModel.from_backbone`].

    Returns:
        [`TartForSequenceClassification`], [`TartForImageClassification`] or [`TartForAudioClassification`]: of a
        backbone that reads several things, for images before audio, and for audio before texts.
    """
    name_or_model = unwrap(name_or_model)
    if isinstance(name_or_model, PreTrainedModel):
        return CLASSES[_choose(modalities_of(type(name_or_model)))].from_backbone(name_or_model, **kwargs)
    source, revision = locate(as_name(name_or_model), kwargs.get("revision"))
    hub = {**{key: kwargs[key] for key in HUB if key in kwargs}, "revision": revision}
    modality = backbone_modality(backbone_config(source, **hub))
    return CLASSES[modality].from_backbone(name_or_model, **kwargs)


def backbone_modality(config: PreTrainedConfig) -> str:
    """Return what the backbone of a config is used for: `"text"`, `"image"` or `"audio"`."""
    known = loaded_classes_of(config)
    return _choose(modalities_of(known[0]) if len(known) == 1 else ("text",))


def _choose(reads: tuple[str, ...]) -> str:
    """What a backbone is used for that reads these: what needs a processor besides a tokenizer."""
    return next((modality for modality in ("image", "audio") if modality in reads), "text")


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
        config = backbone_config(name, **{key: kwargs[key] for key in HUB if kwargs.get(key) is not None})
    if isinstance(config, TartConfig):
        return CLASSES[config.modality].from_pretrained(name, config=config, **kwargs)
    if kwargs.pop("backbone", None) is not None:
        raise ValueError(
            f'{name} holds a model of type "{config.model_type}", not a TART task, so it is the backbone; leave '
            "backbone= out, or give the task as model=..."
        )
    if os.path.isdir(name):
        name = os.path.abspath(name)  # transformers took the config from the folder of this name
    return compose_any(name, **kwargs)


__all__ = ["CLASSES", "PipelineModel", "backbone_modality", "compose_any", "load_any"]
