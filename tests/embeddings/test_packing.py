"""Packed embeddings: their precision, their bits, and the comparison of predictions."""

import functools
from dataclasses import replace

import pytest
import torch
from helpers.builders import (
    build_backbone,
    build_reasoner,
    build_tokenizer,
    compose,
    make_examples,
    shared_reasoner,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.embeddings.packing import PackedEmbeddings, draw_probes, is_unchanged
from transformers_tart.support import PreparedSupport


MOST_CHANGE_OF_AN_ANSWER = 1e-3
HALF = 2**-11  # largest relative rounding error of float16
EXTREMES = ("outlier", "constant_layer", "off_center", "large", "tiny", "dominated", "even", "mixed")


def draw_extreme(kind: str, k: int, seed: int, layers: int = 2, width: int = 24) -> Tensor:
    """Embeddings (k, layers, width) of two classes, one of the kinds that are hard to round."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(k, layers, width, generator=generator) + (torch.arange(k) % 2)[:, None, None]
    dense = torch.randn(layers, width, generator=generator)
    along = torch.randn(k, 1, 1, generator=generator)
    scales = 10.0 ** torch.randint(-30, 30, (layers, 1), generator=generator)
    return {
        "outlier": torch.cat([x[..., :1] * 1e6, x[..., 1:]], -1),
        "constant_layer": torch.cat([x[:, :1], torch.full_like(x[:, :1], 3e5)], 1),
        "off_center": x + 1e5 * dense,
        "large": x * 1e30,
        "tiny": x * 1e-37,
        "dominated": x + 1e5 * along * dense,  # the rounding errors of one direction are as large as the others
        "even": 1 + x * 1e-6,
        "mixed": x * scales,
    }[kind]


@functools.cache
def compose_cached(architecture: str) -> TartForSequenceClassification:
    """A model that reads embeddings of one view; its backbone is not called."""
    reasoner = shared_reasoner() if architecture == "kernel" else build_reasoner(architecture)
    return TartForSequenceClassification.from_backbone(build_backbone("llama"), reasoner, layers="all")


def fit_and_pack(model: TartForSequenceClassification, embeddings: Tensor) -> tuple[PreparedSupport, PreparedSupport]:
    """Return a support set as the model prepares it in float32, and as it keeps it."""
    labels = torch.arange(len(embeddings)) % 2
    full = model.prepare_embedded(SupportSet(embeddings, labels, ("a", "b")))
    return full, model._pack(full)


@pytest.mark.parametrize("shape", [(6, 40), (6, 3, 40)])
@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1.0, 1e5, 1e30])
def test__pack__any_scale__errors_are_relative_to_the_deviations(shape: tuple, scale: float) -> None:
    embeddings = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 3.0) * scale
    packed = PackedEmbeddings.of(embeddings)
    assert packed is not None
    allowed = HALF * (embeddings - embeddings.mean(0)).abs() + 2**-22 * embeddings.abs() + 2**-148
    assert ((packed.unpack() - embeddings).abs() <= allowed).all()


def test__unpack__fused_or_not__same_bits() -> None:
    packed = PackedEmbeddings.of(draw_extreme("off_center", 9, 0))
    assert packed is not None
    exact = packed.values.double() * packed.unit.double() + packed.center.double()
    assert torch.equal(packed.unpack(), exact.float())  # one rounding, as a fused multiply-add has


@pytest.mark.parametrize(
    "embeddings",
    [
        torch.randn(9, 40).double(),
        torch.randn(9, 40).bfloat16(),
        torch.randn(2, 3, 40),  # with the center as large as in float32
        torch.tensor([[3e38, 1.0], [-3e38, 2.0], [3e38, 3.0], [3e38, 4.0]]),
    ],
    ids=["float64", "bfloat16", "two_examples", "overflow"],
)
def test__pack__not_smaller_or_not_finite__none(embeddings: Tensor) -> None:
    assert PackedEmbeddings.of(embeddings) is None


@pytest.mark.parametrize("field", ["values", "center", "unit"])
def test__packed_embeddings__parts_that_do_not_fit__clear_error(field: str) -> None:
    packed = PackedEmbeddings.of(torch.randn(9, 3, 40))
    assert packed is not None
    with pytest.raises(ValueError, match="pack the embeddings again"):
        replace(packed, **{field: getattr(packed, field)[:, :1]} if field != "unit" else {"unit": torch.ones(1, 1)})
    with pytest.raises(ValueError, match="pack them again"):
        replace(packed, **{field: getattr(packed, field).double()})


def test__draw_probes__many_examples__few_queries_of_both_kinds() -> None:
    embeddings = torch.randn(1000, 2, 3)
    probes = draw_probes(embeddings)
    assert probes.shape == (128, 2, 3)
    assert torch.equal(probes[[0, 63]], embeddings[[0, 999]])
    assert torch.equal(draw_probes(embeddings[:3])[3:], (embeddings[:3] / 2 + embeddings[[2, 0, 1]] / 2))


def test__is_unchanged__nan_or_another_prediction__false() -> None:
    logits = torch.randn(4, 3)
    assert is_unchanged(logits, logits + 1.0)
    assert not is_unchanged(logits, logits * 1.1)
    assert not is_unchanged(logits, logits * torch.nan)


@settings(max_examples=40)
@given(
    architecture=st.sampled_from(["kernel", "gpt2"]),
    kind=st.sampled_from(EXTREMES),
    k=st.integers(2, 33),
    seed=st.integers(0, 2**16),
)
def test__pack__extreme_embeddings__no_answer_changes(architecture: str, kind: str, k: int, seed: int) -> None:
    model, embeddings = compose_cached(architecture), draw_extreme(kind, 2 * k, seed)
    full, kept = fit_and_pack(model, embeddings[:k])
    with torch.no_grad():
        expected, found = (model.answer(embeddings[k:], each).softmax(-1) for each in (full, kept))
    assert (found - expected).abs().max() <= MOST_CHANGE_OF_AN_ANSWER


@pytest.mark.parametrize(
    ("architecture", "kind", "is_packed"),
    [("kernel", "mixed", True), ("kernel", "dominated", False), ("gpt2", "dominated", False)],
)
def test__pack__rounding_that_changes_answers__kept_in_float32(architecture: str, kind: str, is_packed: bool) -> None:
    full, kept = fit_and_pack(compose_cached(architecture), draw_extreme(kind, 16, 0))
    assert (kept.support.packed is not None, kept is not full) == (is_packed, is_packed)


def test__encode_support__examples__embeddings_are_the_unpacked_ones() -> None:
    model = compose()
    support = model.encode_support(make_examples(), build_tokenizer())
    assert support.packed is not None
    assert torch.equal(support.packed.unpack(), support.embeddings)
    assert support.packed.num_bytes < 0.7 * support.embeddings.nbytes


def test__encode_support__two_examples__stored_as_they_are() -> None:
    assert compose().encode_support(make_examples(2), build_tokenizer()).packed is None
