"""Embeddings of length one: of every protocol and modality, as those of any length are, divided by their norms."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import (
    build_backbone,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    score_all,
)
from helpers.builders import shared_reasoner as reasoner
from torch import Tensor
from transformers import AutoModel, ViTConfig, Wav2Vec2Config

from transformers_tart import TartForAudioClassification, TartForImageClassification, TartForSequenceClassification
from transformers_tart.embeddings import embed, encode_texts


TEXTS = make_texts(7, seed=6)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WAVES = {"conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


def divide(embeddings: Tensor) -> Tensor:
    return embeddings / embeddings.square().sum(-1, keepdim=True).sqrt()


def embed_all_ways(model: TartForSequenceClassification) -> list[Tensor]:
    """Embeddings of the examples, of queries as rows, and of queries as a batch."""
    tokenizer, embedder = build_tokenizer(), model.embedder()
    prepared = model.prepare_examples(make_examples(), tokenizer)
    rows = embedder.embed_rows(embedder.tokenize(tokenizer, TEXTS), prepared.reading)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    return [prepared.support.embeddings, rows, embedder.embed_batch(batch, prepared.reading)]


@pytest.mark.parametrize("layers", ["all", -1])
@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
def test__normalize__any_protocol__each_layer_divided_by_its_norm(protocol: str, layers: int | str) -> None:
    options: dict[str, Any] = {"protocol": protocol, "layers": layers}
    long = {"max_position_embeddings": 256}
    plain, normal = (
        TartForSequenceClassification.from_backbone(
            build_backbone("llama", **long), reasoner(), normalize=normalize, **options
        )
        for normalize in (False, True)
    )
    # a support set holds its embeddings in float16
    ways = zip(embed_all_ways(plain), embed_all_ways(normal), (1e-3, 1e-5, 1e-5), strict=True)
    for expected, found, tolerance in ways:
        assert (expected.norm(dim=-1) - 1).abs().max() > 0.1
        torch.testing.assert_close(found, divide(expected), atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("protocol", ["stream", "vanilla"])
def test__embed__normalize__same(protocol: str) -> None:
    backbone = build_backbone("llama", max_position_embeddings=256)
    given = (backbone, build_tokenizer(), TEXTS[:4], [0, 1, 0, 1], TEXTS[4:])
    expected = embed(*given, protocol=protocol)[:2]
    for found, plain in zip(embed(*given, protocol=protocol, normalize=True)[:2], expected, strict=True):
        torch.testing.assert_close(found, divide(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "shape", "name"),
    [
        (TartForImageClassification, ViTConfig(**SIZES, image_size=16, patch_size=8), (3, 16, 16), "pixel_values"),
        (TartForAudioClassification, Wav2Vec2Config(**SIZES, **WAVES, vocab_size=32), (2000,), "input_values"),
    ],
)
def test__normalize__images_and_audio__each_layer_divided_by_its_norm(
    kind: Any, config: Any, shape: tuple[int, ...], name: str
) -> None:
    torch.manual_seed(0)
    backbone = AutoModel.from_config(config).eval()
    inputs = torch.randn(4, *shape)
    rows = [{name: row} for row in inputs]
    plain, normal = (kind.from_backbone(backbone, reasoner(), normalize=n).embedder() for n in (False, True))
    expected = divide(plain.embed_rows(rows))
    torch.testing.assert_close(normal.embed_rows(rows), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normal.embed_batch({name: inputs}), expected, atol=1e-5, rtol=1e-5)


def test__normalize__bfloat16_backbone__in_float32() -> None:
    backbone = build_backbone("llama").to(torch.bfloat16)
    found = encode_texts(backbone, build_tokenizer(), TEXTS, normalize=True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(len(TEXTS), 1), atol=1e-6, rtol=0)


def test__normalize__zero__stays_zero() -> None:
    backbone = build_backbone("llama")
    backbone.norm.weight.data.zero_()
    found = encode_texts(backbone, build_tokenizer(), TEXTS, layers="all", normalize=True)
    assert torch.equal(found[:, -1], torch.zeros_like(found[:, -1]))
    assert torch.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["stream", "vanilla"])
def test__embedding_cache__normalized_and_not__each_its_own(protocol: str, tmp_path: Path) -> None:
    expected = {n: score_all(make_pipeline(compose(protocol=protocol, normalize=n)), TEXTS) for n in (False, True)}
    assert (expected[True] - expected[False]).abs().max() > 1e-4
    for normalize in (False, True, False):  # what one keeps serves the other
        classify = make_pipeline(compose(protocol=protocol, normalize=normalize), embedding_cache=tmp_path)
        torch.testing.assert_close(score_all(classify, TEXTS), expected[normalize], atol=1e-5, rtol=0)
