"""Tiny random backbones of images and audio, their processors, and images and sounds that are easy to tell apart."""

import copy
import functools
import io
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from helpers.builders import shared_reasoner
from PIL import Image
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    AutoModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    Dinov2Config,
    HubertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessor,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from transformers_tart import TartForAudioClassification, TartForImageClassification
from transformers_tart.inputs.modality import AUDIO, IMAGE, Modality
from transformers_tart.modeling_tart import TartMediaModel


RATE = 16000
NAMES = ("a", "b", "c")  # of the classes
PITCHES = (200.0, 900.0, 3000.0)  # of the sounds of each class, in Hz

_SQUARE = {"height": 32, "width": 32}
_EDGE = {"shortest_edge": 32}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_PATCHES = {**_SIZES, "image_size": 32, "patch_size": 8}
_WORDS = {**_SIZES, "vocab_size": 99}
_WAVES = {
    **_WORDS,
    "vocab_size": 32,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
_TWO_STAGES = {"image_size": 32, "depths": [1, 1]}
_STEREOTYPED = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


class Family(NamedTuple):
    """A kind of backbone: what it reads, its config, its processor, and the class of the part that reads."""

    modality: Modality
    config: PreTrainedConfig
    processor: Any
    tower: str


FAMILIES = {
    "vit": Family(IMAGE, ViTConfig(**_PATCHES), ViTImageProcessor(size=_SQUARE), "ViTModel"),
    "dinov2": Family(IMAGE, Dinov2Config(**_PATCHES), BitImageProcessor(size=_EDGE, crop_size=_SQUARE), "Dinov2Model"),
    "swin": Family(
        IMAGE,
        SwinConfig(**_TWO_STAGES, patch_size=4, embed_dim=16, num_heads=[2, 2], window_size=4),
        ViTImageProcessor(size=_SQUARE),
        "SwinModel",
    ),
    "convnext": Family(
        IMAGE,
        ConvNextConfig(**_TWO_STAGES, num_stages=2, hidden_sizes=[8, 16]),
        ConvNextImageProcessor(size=_EDGE),
        "ConvNextModel",
    ),
    "clip": Family(
        IMAGE,
        CLIPConfig(vision_config=_PATCHES, text_config=_WORDS),
        CLIPImageProcessor(size=_EDGE, crop_size=_SQUARE),
        "CLIPVisionModel",
    ),
    "siglip": Family(
        IMAGE,
        SiglipConfig(vision_config=_PATCHES, text_config=_WORDS),
        SiglipImageProcessor(size=_SQUARE),
        "SiglipVisionModel",
    ),
    "whisper": Family(
        AUDIO,
        WhisperConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            vocab_size=99,
            max_source_positions=100,
            **_STEREOTYPED,
        ),
        WhisperFeatureExtractor(chunk_length=2),
        "WhisperEncoder",
    ),
    # normalizes over time, so that padding changes what is heard
    "wav2vec2": Family(
        AUDIO, Wav2Vec2Config(**_WAVES), Wav2Vec2FeatureExtractor(return_attention_mask=False), "Wav2Vec2Model"
    ),
    "wav2vec2_layer": Family(
        AUDIO,
        Wav2Vec2Config(**_WAVES, feat_extract_norm="layer", do_stable_layer_norm=True),
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
        "Wav2Vec2Model",
    ),
    "hubert": Family(AUDIO, HubertConfig(**_WAVES), Wav2Vec2FeatureExtractor(), "HubertModel"),
    "ast": Family(
        AUDIO,
        ASTConfig(**_SIZES, max_length=128, num_mel_bins=32),
        ASTFeatureExtractor(max_length=128, num_mel_bins=32),
        "ASTModel",
    ),
}
AUDIO_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.modality == "audio")
WITH_OTHER_TOWERS = ("clip", "siglip", "whisper")


def as_pcm(samples: np.ndarray) -> np.ndarray:
    """Samples as a file of 16 bit integers keeps them."""
    return (np.rint(samples * 32768) / 32768).astype(np.float32)


def widen(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Draw weights so large that inputs are told apart; the usual 0.02 would make all alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return model.eval()


def build_media(name: str, seed: int = 0) -> PreTrainedModel:
    """A random model of a family, all of its towers."""
    torch.manual_seed(seed)
    return widen(AutoModel.from_config(copy.deepcopy(FAMILIES[name].config)), seed)


@functools.cache
def shared_media(name: str) -> PreTrainedModel:
    """A random model of a family, built once; tests leave it as it is."""
    return build_media(name)


def processor_of(name: str) -> Any:
    """An image processor or feature extractor of a family."""
    return copy.deepcopy(FAMILIES[name].processor)


def save_media(folder: Path, name: str, model: PreTrainedModel | None = None) -> str:
    """Save a model of a family, or the one given, and the processor as a repository."""
    (shared_media(name) if model is None else model).save_pretrained(folder)
    processor_of(name).save_pretrained(folder)
    return str(folder)


def class_of(name: str) -> type[TartMediaModel]:
    """The class that classifies what a family reads."""
    return {"image": TartForImageClassification, "audio": TartForAudioClassification}[FAMILIES[name].modality]


def compose_media(name: str, backbone: PreTrainedModel | str | None = None, **options: Any) -> TartMediaModel:
    """The backbone of a family, a new random one or that given, with the reasoner inside the package."""
    given = build_media(name) if backbone is None else backbone
    return class_of(name).from_backbone(given, copy.deepcopy(shared_reasoner()), **options)


def process(name: str, items: Sequence[Any]) -> dict[str, torch.Tensor]:
    """A batch as users make it with the processor of a family, sounds padded to the longest where they are padded."""
    processor = processor_of(name)
    if FAMILIES[name].modality == "image":
        return dict(processor(images=items, return_tensors="pt"))
    padding = {"padding": True} if isinstance(processor, Wav2Vec2FeatureExtractor) else {}
    return dict(
        processor(items, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt", **padding),
    )


def make_images(count: int, seed: int = 0) -> list[Image.Image]:
    """Noisy images of many sizes; the classes, in turn, differ in brightness."""
    rng = np.random.default_rng(seed)
    shapes = rng.integers(20, 50, (count, 2))
    return [
        Image.fromarray((rng.integers(0, 90, (*shape, 3)) + 80 * (i % len(NAMES))).astype(np.uint8))
        for i, shape in enumerate(shapes)
    ]


def make_sounds(count: int, seed: int = 0, lengths: tuple[int, int] = (4000, 8000)) -> list[np.ndarray]:
    """Noisy tones of many lengths; the classes, in turn, differ in pitch."""
    rng = np.random.default_rng(seed)
    sounds = []
    for i, length in enumerate(rng.integers(*lengths, count)):
        phase = 2 * np.pi * (PITCHES[i % len(NAMES)] * rng.uniform(0.9, 1.1) * np.arange(length) / RATE + rng.random())
        sounds.append(as_pcm(0.5 * np.sin(phase) + 0.02 * rng.normal(size=length)))
    return sounds


def make_media(modality: str, count: int, seed: int = 0) -> list[Any]:
    """Images or sounds, the classes in turn."""
    return {"image": make_images, "audio": make_sounds}[modality](count, seed)


def make_media_examples(modality: str, count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Labeled images or sounds, the classes in turn."""
    items = make_media(modality, count, seed)
    return [{modality: item, "label": NAMES[i % len(NAMES)]} for i, item in enumerate(items)]


def to_png(image: Image.Image) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def to_wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A sound file of 16 bit integers, (n,) or (n, channels)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(np.rint(samples * 32768).astype("<i2").tobytes())
    return file.getvalue()


def to_file(modality: str, item: Any) -> bytes:
    """What a file of an image or a sound holds."""
    return to_png(item) if modality == "image" else to_wav(item)
