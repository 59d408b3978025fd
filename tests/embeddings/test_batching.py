"""Batches by a budget of tokens."""

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_texts
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart.embeddings import encode_texts
from transformers_tart.embeddings import text as text_module
from transformers_tart.embeddings.batching import Batcher, run_batches


LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


def take(chosen: list[int]) -> Tensor:
    """The indices themselves as results."""
    return torch.tensor(chosen)


@pytest.mark.slow
@given(lengths=LENGTHS, max_tokens=st.integers(1, 120), max_rows=st.none() | st.integers(1, 9), packed=st.booleans())
def test__batcher__any_budget__every_row_once_and_never_more(
    lengths: list[int], max_tokens: int, max_rows: int | None, packed: bool
) -> None:
    batches = [chosen for chosen, _ in Batcher(max_tokens, max_rows).run(lengths, take, packed)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        held = [lengths[i] for i in batch]
        size = sum(held) if packed else len(held) * max(held)
        assert size <= max_tokens or len(batch) == 1
        assert max_rows is None or len(batch) <= max_rows


@pytest.mark.slow
@given(lengths=LENGTHS, room=st.integers(50, 200))
def test__batcher__out_of_memory__smaller_batches_from_there_on(lengths: list[int], room: int) -> None:
    sizes = []

    def work(chosen: list[int]) -> Tensor:
        sizes.append(len(chosen) * max(lengths[i] for i in chosen))
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor(chosen)

    batcher = Batcher(10_000)
    assert run_batches(batcher, lengths, work).tolist() == list(range(len(lengths)))
    failed = [size > room for size in sizes]
    assert sum(failed) <= 8  # halved each time, not once a batch


@pytest.mark.slow
def test__batcher__out_of_memory_with_one_row__raised() -> None:
    def work(chosen: list[int]) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        run_batches(Batcher(100), [5, 7], work)


def test__batcher__other_error__raised_at_once() -> None:
    calls = []

    def work(chosen: list[int]) -> Tensor:
        calls.append(chosen)
        raise RuntimeError("the sizes of tensors must match")

    with pytest.raises(RuntimeError, match="must match"):
        run_batches(Batcher(100), [5, 7], work)
    assert len(calls) == 1


@pytest.mark.slow
def test__encode_texts__out_of_memory__same_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, tokenizer, texts = build_backbone("llama"), build_tokenizer(), make_texts(30, seed=1)
    expected = encode_texts(backbone, tokenizer, texts)
    pool_rows, sizes = text_module.pool_rows, []

    def small(backbone: object, batch: dict[str, Tensor], options: object) -> Tensor:
        sizes.append(batch["input_ids"].numel())
        if sizes[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return pool_rows(backbone, batch, options)

    monkeypatch.setattr(text_module, "pool_rows", small)
    torch.testing.assert_close(encode_texts(backbone, tokenizer, texts), expected, atol=1e-5, rtol=1e-5)
    assert max(sizes) > 40
