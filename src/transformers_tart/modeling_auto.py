"""Composes and loads without saying what a backbone reads: its class tells."""

import os
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from transformers_tart.auto import HUB
from transformers_tart.backbones import as_name, locate
from transformers_tart.backbones.adapters import unwrap
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.files import check_whole
from transformers_tart.modeling_media import TartForAudioClassification, TartForImageClassification
from transformers_tart.modeling_tart import TartForSequenceClassification, TartPreTrainedModel
from transformers_tart.towers import backbone_config, classes_of, modalities_of


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
    known = classes_of(config)
    return _choose(modalities_of(known[0]) if len(known) == 1 else ("text",))


def _choose(reads: tuple[str, ...]) -> str:
    """What a backbone is used for that reads these: what needs a processor besides a tokenizer."""
    return next((modality for modality in ("image", "audio") if modality in reads), "text")


class PipelineModel:
    """What `pipeline("tart-classification", model=<name>)` loads: a TART repository, or any backbone, composed."""

    @classmethod
    def from_pretrained(cls, name: str, config: PreTrainedConfig | None = None, **kwargs: Any) -> TartPreTrainedModel:
        """Load by the kind of repository that `config` describes."""
        check_whole(name)
        if config is None:
            config = backbone_config(name, **{key: kwargs[key] for key in HUB if kwargs.get(key) is not None})
        if isinstance(config, TartConfig):
            return CLASSES[config.modality].from_pretrained(name, config=config, **kwargs)
        kwargs.pop("_from_pipeline", None)
        if os.path.isdir(name):
            name = os.path.abspath(name)  # transformers took the config from the folder of this name
        return compose_any(name, **kwargs)


__all__ = ["CLASSES", "PipelineModel", "backbone_modality", "compose_any"]
