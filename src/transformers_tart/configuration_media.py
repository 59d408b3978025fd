"""Configurations of the composed classifiers of images and of audio."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.bounds import MAX_LAYERS, check_integer
from transformers_tart.checks.strict_config import plain_errors
from transformers_tart.configuration_tart import TartConfig, TartReasonerConfig
from transformers_tart.inputs.modality import AUDIO, IMAGE


POOLINGS = ("mean", "first")
REASONER = SubConfigSpec(config_class=TartReasonerConfig, model_type="tart_reasoner")


@plain_errors
@strict
class TartMediaConfig(TartConfig):
    """What configurations of classifiers of images and of audio share: see [`TartConfig`].

    Each input is embedded alone (`protocol="stream"`), by the `"mean"` of what the backbone makes of its parts, or by
    the `"first"` of them, which many backbones add for the whole, and divided by its norm with `normalize=True`.
    """

    def validate_embedding(self) -> None:
        """Check the fields that say how inputs become embeddings."""
        if self.protocol != "stream" or self.template is not None:
            raise ValueError(
                f"protocol is {shorten(self.protocol)}; {self.modality} inputs are embedded each alone: "
                'protocol="stream", '
                "without a template."
            )
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {shorten(self.pooling)}; it must be one of {POOLINGS}.")
        if isinstance(self.layers, str) and self.layers != "all":
            raise ValueError(f'layers is {shorten(self.layers)}; it must be an index or "all".')
        if self.layers != "all":
            check_integer("layers", self.layers, -MAX_LAYERS, MAX_LAYERS)
        if self.max_length is not None:
            raise ValueError(
                f"max_length is {self.max_length}, which is for texts; cut {self.modality} inputs before."
            )


@plain_errors
@strict
class TartImageConfig(TartMediaConfig):
    """Configuration of a [`TartForImageClassification`].

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the backbone. All other fields are those of [`TartMediaConfig`].
    """

    model_type = "tart_image"
    modality = IMAGE
    backbone_key = "vision_config"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit", optional=True),
        "reasoner_config": REASONER,
    }

    vision_config: dict | PreTrainedConfig | None = None


@plain_errors
@strict
class TartAudioConfig(TartMediaConfig):
    """Configuration of a [`TartForAudioClassification`].

    Args:
        audio_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the backbone. All other fields are those of [`TartMediaConfig`].
    """

    model_type = "tart_audio"
    modality = AUDIO
    backbone_key = "audio_config"
    sub_configs_defaults = {
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="wav2vec2", optional=True),
        "reasoner_config": REASONER,
    }

    audio_config: dict | PreTrainedConfig | None = None


__all__ = ["TartAudioConfig", "TartImageConfig", "TartMediaConfig"]
