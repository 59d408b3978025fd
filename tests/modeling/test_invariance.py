"""A prediction depends on its text and on the support set, and on nothing else, for every backbone."""

import functools

import pytest
import torch
from helpers.builders import (
    BACKBONES,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    score_all,
)
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart import TartClassificationPipeline


TEXTS = make_texts(12, seed=4)
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
EVERY_BACKBONE = pytest.mark.parametrize("model_type", BACKBONES)
EVERY_DTYPE = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@functools.cache
def get_pipeline(
    model_type: str, dtype: torch.dtype = torch.float32, reasoner: str = "kernel"
) -> TartClassificationPipeline:
    model = compose(model_type, reasoner)
    model.backbone.to(dtype)
    return make_pipeline(model, examples=make_examples(24, ("a", "b", "c")))


@functools.cache
def score_one_at_a_time(model_type: str, dtype: torch.dtype, reasoner: str = "kernel") -> torch.Tensor:
    return torch.cat([score_all(get_pipeline(model_type, dtype, reasoner), [text]) for text in TEXTS])


@EVERY_BACKBONE
def test__prediction__of_different_texts__differs(model_type: str) -> None:
    """Without this the tests below could hold for a model that ignores its input."""
    assert score_one_at_a_time(model_type, torch.float32).std(0).max() > 0.01


@pytest.mark.slow
@EVERY_BACKBONE
@EVERY_DTYPE
@given(
    chosen=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=9),
    batch_size=st.integers(1, 9),
)
def test__prediction__other_queries_and_batch_size__same(
    model_type: str, dtype: torch.dtype, chosen: list[int], batch_size: int
) -> None:
    expected = score_one_at_a_time(model_type, dtype)[chosen]
    found = score_all(get_pipeline(model_type, dtype), [TEXTS[i] for i in chosen], batch_size=batch_size)
    torch.testing.assert_close(found, expected, atol=TOLERANCES[dtype], rtol=0)


@EVERY_BACKBONE
@EVERY_DTYPE
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("extra", [0, 13])
def test__prediction__padding__same(model_type: str, dtype: torch.dtype, side: str, extra: int) -> None:
    tokenizer = build_tokenizer(padding_side=side)
    longest = max(len(ids) for ids in tokenizer(TEXTS)["input_ids"])
    batch = tokenizer(TEXTS, padding="max_length", max_length=longest + extra, return_tensors="pt")
    model = get_pipeline(model_type, dtype).model
    with torch.no_grad():
        found = model(batch["input_ids"], batch["attention_mask"]).logits.softmax(-1)
    torch.testing.assert_close(found, score_one_at_a_time(model_type, dtype), atol=TOLERANCES[dtype], rtol=0)


@pytest.mark.parametrize("reasoner", ["kernel", "gpt2"])
@given(batch_size=st.integers(1, 12))
def test__prediction__either_reasoner_and_batch_size__same(reasoner: str, batch_size: int) -> None:
    expected = score_one_at_a_time("llama", torch.float32, reasoner)
    found = score_all(get_pipeline("llama", torch.float32, reasoner), TEXTS, batch_size=batch_size)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "bert"])
@given(seed=st.integers(0, 100))
def test__prediction__order_of_the_examples__same(model_type: str, seed: int) -> None:
    examples = make_examples(24, ("a", "b", "c"))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed)).tolist()
    found = score_all(get_pipeline(model_type), TEXTS, examples=[examples[i] for i in order])
    torch.testing.assert_close(found, score_one_at_a_time(model_type, torch.float32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test__prediction__classes_renamed__scores_follow_the_names(model_type: str) -> None:
    renamed = {"a": "y", "b": "z", "c": "x"}
    examples = [{**row, "label": renamed[row["label"]]} for row in make_examples(24, ("a", "b", "c"))]
    found = score_all(get_pipeline(model_type), TEXTS, examples=examples)
    expected = score_one_at_a_time(model_type, torch.float32)[:, [2, 0, 1]]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
