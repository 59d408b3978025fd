"""Unusual backbones of images and audio: maps, pyramids, masks, random masking, misleading classes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import shared_reasoner
from helpers.media_backbones import NAMES, make_media, make_media_examples, widen
from transformers import (
    AutoModel,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    FocalNetConfig,
    MoonshineConfig,
    PreTrainedModel,
    RegNetConfig,
    ResNetConfig,
    SamConfig,
    Siglip2Config,
    Siglip2ImageProcessor,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    pipeline,
)

from transformers_tart import TartForImageClassification


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {**SIZES, "image_size": 32, "patch_size": 8}
WORDS = {**SIZES, "vocab_size": 99}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
SEES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8}


def square(size: int = 32) -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": size, "width": size})


def sam() -> SamConfig:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    return SamConfig(
        vision_config={**SEES, "output_channels": 16, "window_size": 4, "global_attn_indexes": [1], "mlp_dim": 64},
        mask_decoder_config={**small, "iou_head_hidden_dim": 16},
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8},
    )


def moonshine() -> MoonshineConfig:
    layers = {"encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 1}
    heads = {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return MoonshineConfig(hidden_size=32, intermediate_size=64, vocab_size=99, **layers, **heads, **ids)


# what they read, their config and their processor
BACKBONES: dict[str, tuple[str, Callable[[], Any], Callable[[], Any]]] = {
    "resnet": ("image", lambda: ResNetConfig(embedding_size=8, layer_type="basic", **STAGES), square),
    "regnet": ("image", lambda: RegNetConfig(embedding_size=8, groups_width=8, **STAGES), square),
    "focalnet": (
        "image",
        lambda: FocalNetConfig(
            image_size=32, patch_size=4, embed_dim=8, focal_levels=[1, 1], focal_windows=[3, 3], **STAGES
        ),
        square,
    ),
    "dinov3": ("image", lambda: DINOv3ViTConfig(**PATCHES), square),
    "dinov3_convnext": (
        "image",
        lambda: DINOv3ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], image_size=32),
        square,
    ),
    # gives a mask of patches with them
    "siglip2": (
        "image",
        lambda: Siglip2Config(vision_config={**SIZES, "patch_size": 8, "num_patches": 16}, text_config=WORDS),
        lambda: Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
    ),
    "sam": ("image", sam, lambda: square(64)),
    # says that it reads audio alone, though its decoder reads texts
    "moonshine": ("audio", moonshine, Wav2Vec2FeatureExtractor),
}


def build(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return widen(AutoModel.from_config(BACKBONES[name][1]()))


def score(results: list[list[dict]]) -> torch.Tensor:
    return torch.tensor([[r["score"] for r in sorted(result, key=lambda r: r["label"])] for result in results])


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test__pipeline__folder_of_the_backbone__same_answers_always(name: str, tmp_path: Path) -> None:
    modality, _, processor = BACKBONES[name]
    build(name).save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    examples = make_media_examples(modality)
    classify = pipeline("tart-classification", model=str(tmp_path), examples=examples)
    assert classify.model.config.modality == modality
    items = make_media(modality, 6, seed=1)
    found = classify(items, top_k=None)
    scores = score(found)
    assert torch.isfinite(scores).all()
    assert (scores - scores[0]).abs().max() > 0.1
    for again in (classify(items, top_k=None), [classify(item, top_k=None) for item in items]):
        torch.testing.assert_close(score(again), scores, atol=1e-4, rtol=0)
    classify.save_pretrained(tmp_path / "task")
    if modality == "audio":
        items = [{"raw": item, "sampling_rate": classify.feature_extractor.sampling_rate} for item in items]
    stock = pipeline(f"{modality}-classification", model=str(tmp_path / "task"))
    torch.testing.assert_close(score(stock(items, top_k=len(NAMES))), scores, atol=1e-4, rtol=0)


def test__embed_batch__maps_whose_last_axis_is_the_width__means_over_their_places() -> None:
    whole = build("sam")
    model = TartForImageClassification.from_backbone(whole, copy.deepcopy(shared_reasoner()), views="mean_all")
    pixels = square(64)(images=make_media("image", 3), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = model.backbone(pixels, output_hidden_states=True).hidden_states
    assert {state.shape[1:] for state in states} == {(8, 8, 32)}
    expected = torch.stack([state.mean((1, 2)) for state in states], dim=1)
    found = model.embedder().embed_batch({"pixel_values": pixels})
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
