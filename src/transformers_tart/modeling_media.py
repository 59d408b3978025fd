"""The composed classifiers of images and of audio."""

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from transformers_tart.backbones.forward import accepts
from transformers_tart.backbones.model_inputs import check_features
from transformers_tart.checks.arguments import refuse_unknown
from transformers_tart.configuration_media import TartAudioConfig, TartImageConfig, TartMediaConfig
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.inference import PreparedSupport
from transformers_tart.modeling_tart import TartPreTrainedModel
from transformers_tart.support import SupportSet


class TartMediaModel(TartPreTrainedModel):
    """What the classifiers of images and of audio share."""

    config: TartMediaConfig

    def embedder(self, cache: EmbeddingCache | None = None, max_length: int | None = None) -> MediaEmbedder:
        """Return the embedder of this model, with a cache or without."""
        if max_length is not None:
            raise ValueError(
                f"max_length is {max_length}, which is for texts; cut {self.config.modality} inputs before."
            )
        self._keep_mode()
        return MediaEmbedder(self.traits, self.config.embedding_options, cache, self.config.modality)

    def _features(self, given: dict[str, Any]) -> dict[str, Tensor]:
        """What the processor gives beside the main input, and the backbone takes."""
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
        r"""
        Classify processed images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, channels, height, width)`):
                From the backbone's image processor.
            support ([`SupportSet`], *optional*):
                The labeled examples; the stored support set when not given.
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                True classes; the output then holds the cross-entropy.
            kwargs:
                What else the image processor gives, for backbones that take it.

        Returns:
            `SequenceClassifierOutput`: `logits` (batch, num_labels) float32 are log-probabilities up to a constant.

        Raises:
            TypeError, ValueError: Without a support set, on something else than the processor of the backbone returns,
                or when the backbone gives embeddings that are not finite.
        """
        batch = check_features({"pixel_values": pixel_values, **self._features(kwargs)}, "pixel_values", (3, 4, 5))
        return self._answer(batch, support, labels)


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
        r"""
        Classify processed audio.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)` or `(batch, frames, bins)`, *optional*),
            input_features (`torch.FloatTensor` of shape `(batch, bins, frames)`, *optional*):
                From the backbone's feature extractor, under the name that it gives.
            attention_mask (`torch.LongTensor` of shape `(batch, samples)` or `(batch, frames)`, *optional*):
                1 for sound, 0 for padding, which is then left out of the mean.
            support ([`SupportSet`], *optional*):
                The labeled examples; the stored support set when not given.
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                True classes; the output then holds the cross-entropy.
            kwargs:
                What else the feature extractor gives, for backbones that take it.

        Returns:
            `SequenceClassifierOutput`: `logits` (batch, num_labels) float32 are log-probabilities up to a constant.

        Raises:
            TypeError, ValueError: Without a support set, on something else than the processor of the backbone returns,
                or when the backbone gives embeddings that are not finite.
        """
        batch = {"input_values": input_values, "input_features": input_features, "attention_mask": attention_mask}
        main = "input_values" if input_features is None else "input_features"
        return self._answer(check_features({**batch, **self._features(kwargs)}, main, (2, 3, 4)), support, labels)


__all__ = ["TartForAudioClassification", "TartForImageClassification"]
