"""The composed classifiers of texts, images and audio, and the choice between them."""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.dtype import with_dtype
from transformers_tart.backbones.model_inputs import check_features, check_tokens
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.towers import loaded_classes_of, modalities_of
from transformers_tart.checks.arguments import refuse_unknown
from transformers_tart.configuration_tart import TartAudioConfig, TartBaseConfig, TartConfig, TartImageConfig
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.files import check_whole
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.loading.auto import find_model
from transformers_tart.loading.download import HUB, select
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.reasoners.kv_cache import accepts
from transformers_tart.support import PreparedSupport, SupportSet


class TartForSequenceClassification(TartPreTrainedModel):
    r"""
    Few-shot classifier of texts; see [`TartPreTrainedModel`].

    ```python
    >>> model = TartForSequenceClassification.from_backbone("EleutherAI/pythia-160m")
    >>> support = model.encode_support(examples, tokenizer)
    >>> logits = model(**tokenizer("free entry, text WIN now", return_tensors="pt"), support=support).logits
    ```
    """

    config: TartConfig
    main_input_name = "input_ids"
    auto_map_classes = {
        "AutoConfig": "TartConfig",
        "AutoModel": "TartForSequenceClassification",
        "AutoModelForSequenceClassification": "TartForSequenceClassification",
    }

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        support: SupportSet | PreparedSupport | None = None,
        labels: Tensor | None = None,
        hints: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        r"""Classify tokenized texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                Token ids, padded on either side.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            token_type_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Segments of text pairs, for backbones that take them.
            support ([`SupportSet`], *optional*):
                The labeled examples; the stored support set when not given.
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                True classes; the output then holds the cross-entropy.
            hints (`torch.FloatTensor` of shape `(batch, hints of the user, num_labels)`, *optional*):
                Scores of the texts by hints of the user.
            kwargs:
                Only switches that turn other outputs off, such as `output_attentions=False`.

        Returns:
            `SequenceClassifierOutput`: `logits` (batch, num_labels) float32 are log-probabilities up to a constant.

        Raises:
            TypeError: On other arguments, and on anything but tensors of integers.
            ValueError: Without a support set, on invalid ids, masks or labels, or when embeddings are not finite.
        """
        refuse_unknown(kwargs)
        batch = check_tokens(self.backbone, input_ids, attention_mask, token_type_ids)
        return self._classify_batch(batch, support, labels, hints)


class TartMediaModel(TartPreTrainedModel):
    """Base of the classifiers of images and of audio."""

    _embedder_class = MediaEmbedder

    def _features(self, given: dict[str, Any]) -> dict[str, Tensor]:
        """Return the features of a processor, beside the main input, that the backbone takes."""
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        refuse_unknown(given, [name for name in tensors if accepts(self.backbone, name)])
        return tensors


class TartForImageClassification(TartMediaModel):
    r"""
    Few-shot classifier of images; see [`TartPreTrainedModel`].

    ```python
    >>> model = TartForImageClassification.from_backbone("facebook/dinov2-small")
    >>> support = model.encode_support([{"image": image, "label": "cat"}, ...], image_processor)
    >>> logits = model(**image_processor(images=photo, return_tensors="pt"), support=support).logits
    ```
    """

    config: TartImageConfig
    main_input_name = "pixel_values"
    auto_map_classes = {
        "AutoConfig": "TartImageConfig",
        "AutoModel": "TartForImageClassification",
        "AutoModelForImageClassification": "TartForImageClassification",
    }

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        support: SupportSet | PreparedSupport | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        r"""Classify processed images; result and errors are those of [`TartForSequenceClassification.forward`].

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                From the backbone's image processor.
            support ([`SupportSet`], *optional*), labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                As in [`TartForSequenceClassification.forward`].
            kwargs:
                Other features from the image processor, for backbones that take them.
        """
        batch = check_features({"pixel_values": pixel_values, **self._features(kwargs)}, "pixel_values", (3, 4, 5))
        return self._classify_batch(batch, support, labels)


class TartForAudioClassification(TartMediaModel):
    r"""
    Few-shot classifier of audio; see [`TartPreTrainedModel`]. Of an encoder-decoder, only the encoder is loaded.

    ```python
    >>> model = TartForAudioClassification.from_backbone("openai/whisper-tiny")
    >>> support = model.encode_support([{"audio": "yes.wav", "label": "yes"}, ...], feature_extractor)
    >>> logits = model(**feature_extractor(samples, sampling_rate=16000, return_tensors="pt"), support=support).logits
    ```
    """

    config: TartAudioConfig
    main_input_name = "input_values"
    auto_map_classes = {
        "AutoConfig": "TartAudioConfig",
        "AutoModel": "TartForAudioClassification",
        "AutoModelForAudioClassification": "TartForAudioClassification",
    }

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        support: SupportSet | PreparedSupport | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        r"""Classify processed audio; result and errors are those of [`TartForSequenceClassification.forward`].

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)` or `(batch, frames, bins)`, *optional*),
            input_features (`torch.FloatTensor` of shape `(batch, bins, frames)`, *optional*):
                From the backbone's feature extractor, under its name for them.
            attention_mask (`torch.LongTensor` of shape `(batch, samples)` or `(batch, frames)`, *optional*):
                1 for sound, 0 for padding, which is left out of the mean.
            support ([`SupportSet`], *optional*), labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                As in [`TartForSequenceClassification.forward`].
            kwargs:
                Other features from the feature extractor, for backbones that take them.
        """
        batch = {"input_values": input_values, "input_features": input_features, "attention_mask": attention_mask}
        main = "input_values" if input_features is None else "input_features"
        return self._classify_batch(
            check_features({**batch, **self._features(kwargs)}, main, (2, 3, 4)), support, labels
        )


def compose_any(name_or_model: str | os.PathLike | PreTrainedModel, **kwargs: Any) -> TartPreTrainedModel:
    r"""
    Compose a backbone of any modality with a reasoner.

    Args:
        name_or_model (`str`, `Path` or `PreTrainedModel`), kwargs:
            As in [`TartPreTrainedModel.from_backbone`].

    Returns:
        [`TartForSequenceClassification`], [`TartForImageClassification`] or [`TartForAudioClassification`]. A backbone
        that reads several modalities is composed for images before audio, and for audio before texts.
    """
    inner = unwrap(name_or_model)
    if isinstance(inner, PreTrainedModel):
        config_class = _choose_config(modalities_of(type(inner)))
        return _model_class(config_class).from_backbone(name_or_model, **kwargs)
    reference = BackboneReference.of(name_or_model, kwargs.get("revision"), kwargs.get("subfolder"))
    hub = {**select(kwargs, HUB), "revision": None, **reference.place}
    config_class = _choose_for(find_model(reference.path, **hub).config)
    return _model_class(config_class).from_backbone(name_or_model, **kwargs)


def backbone_modality(config: PreTrainedConfig) -> Modality:
    """Return the modality for which the backbone of a config is composed."""
    return _choose_for(config).modality


def _choose_for(config: PreTrainedConfig) -> type[TartBaseConfig]:
    known = loaded_classes_of(config)
    return _choose_config(modalities_of(known[0]) if len(known) == 1 else (TEXT,))


def _choose_config(reads: tuple[str, ...]) -> type[TartBaseConfig]:
    """Return the config class for a backbone that reads some modalities; texts come last."""
    classes = [each for each in TartBaseConfig.__subclasses__() if each in AutoModel._model_mapping]
    return next((each for each in classes if each.modality in reads and not each.modality.is_tokenized), TartConfig)


def class_for(modality: str) -> type[TartPreTrainedModel]:
    """Return the class of composed models for a modality."""
    return _model_class(_choose_config((modality,)))


def _model_class(config_class: type[TartBaseConfig]) -> type[TartPreTrainedModel]:
    found: Any = AutoModel._model_mapping[config_class]
    return found


class PipelineModel:
    """The model of `pipeline("tart-classification", model=<name>)` before it is loaded: a task or a backbone.

    The pipeline class loads it, with `backbone=...` where that was given to `pipeline`, so that errors are raised as
    they are: transformers would list all classes that it tried in place of them.
    """

    # transformers asks for the device of a model that has no device map
    hf_device_map: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, name: str, arguments: dict[str, Any]):
        self.name, self.arguments = name, arguments

    @classmethod
    def from_pretrained(cls, name: str, config: PreTrainedConfig | None = None, **kwargs: Any) -> Any:
        """Load the model, or, for `pipeline`, note the arguments of [`load`]."""
        if kwargs.pop("_from_pipeline", None) is not None:
            return cls(name, kwargs if config is None else {**kwargs, "config": config})
        return load_any(name, config, **kwargs)

    def load(self, pipeline_arguments: dict[str, Any], **more: Any) -> TartPreTrainedModel:
        """Load the model; add the device on which a device map has put all of it to the arguments of the pipeline."""
        model = load_any(self.name, device=pipeline_arguments.get("device"), **self.arguments, **more)
        if self.arguments.get("device_map") is not None and getattr(model, "hf_device_map", None) is None:
            pipeline_arguments.setdefault("device", model.device)
        return model


def load_any(name: str, config: PreTrainedConfig | None = None, **kwargs: Any) -> TartPreTrainedModel:
    """Load a TART repository, or compose a backbone, from a Hub id or folder, for a `device`; `config` is its own.

    Raises:
        ValueError: When `backbone` is given with a repository that is a backbone itself.
    """
    check_whole(name)
    if config is None:
        config = find_model(name, **select(kwargs, HUB)).config
    kwargs = with_dtype(kwargs, config, kwargs.pop("device", None))
    if isinstance(config, TartBaseConfig):
        return _model_class(type(config)).from_pretrained(name, config=config, **kwargs)
    if kwargs.pop("backbone", None) is not None:
        raise ValueError(
            f'{name} holds a model of type "{config.model_type}", not a TART task, so it is the backbone; leave '
            "backbone= out, or give the task as model=..."
        )
    if os.path.isdir(name):
        name = os.path.abspath(name)  # transformers took the config from the folder of this name
    return compose_any(name, **kwargs)


__all__ = [
    "PipelineModel",
    "TartForAudioClassification",
    "TartForImageClassification",
    "TartForSequenceClassification",
    "backbone_modality",
    "class_for",
    "compose_any",
    "load_any",
]
