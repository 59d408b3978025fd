"""Packed rows: how continuations of a prefix are divided among them, and that joint reading changes nothing."""

import pytest
import torch
from helpers.builders import build_tokenizer, make_texts
from helpers.prompts_given import build_long
from helpers.views_given import embedder_of, read_by_hand

from transformers_tart.embeddings.prefix_strategies import CPU_ROW, _fill_rows
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View


VIEWS = (
    View("summary", "w1 w2 {text} w3 w4", "last", "late"),
    View("quoted", "w1 w2 {text}", "mean", "all"),
    View("topic", "w1 w2 {text} w5", "last", -1),
)


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        ([7], 9, [[0]]),
        ([10, 80, 10], 9, [[1, 0, 2]]),  # one row without padding
        ([80] * 12, 99, [[i] for i in range(12)]),  # short rows, without padding
        ([80] * 12, 4, [[i, i + 4, i + 8] for i in range(4)]),
        ([80, 60, 20, 10], 1, [[0, 1, 2, 3]]),
        ([200, 100, 90, 30], 9, [[0], [1, 2, 3]]),
        ([300], 9, [[0]]),  # longer than a row
    ],
)
def test__fill_rows__lengths__rows_with_little_padding(
    lengths: list[int], most: int, expected: list[list[int]]
) -> None:
    assert sorted(_fill_rows(lengths, most, CPU_ROW, 4)) == sorted(expected)


def test__fill_rows__after_a_long_prefix__fuller_rows() -> None:
    lengths = [50, 40, 30, 25, 20, 20, 15, 10, 10, 10, 10, 10]
    short, long = (len(_fill_rows(lengths, 99, CPU_ROW, length)) for length in (4, 10**6))
    assert short > long


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bloom"])
def test__embed_rows__more_tokens_than_a_batch__several_rows_as_each_by_hand(name: str) -> None:
    texts = make_texts(90, seed=7, max_words=30)
    backbone, tokenizer, shapes = build_long(name), build_tokenizer(), []
    embedder = embedder_of(backbone, VIEWS)
    reading = embedder.passage_reader.start(tokenizer)
    assert reading.prefixes[0].strategy == "packed"
    hook = backbone.register_forward_pre_hook(
        lambda module, args, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    found = embedder.embed_rows(embedder.tokenize(tokenizer, texts), reading, pad_token_id=0)
    hook.remove()
    # biases by distance are the same for all rows of a batch
    assert (max(rows for rows, _ in shapes) == 1) == (name == "bloom")
    assert max(length for _, length in shapes) <= 1.2 * CPU_ROW
    assert sum(rows * length for rows, length in shapes) < 1.1 * sum(len(text.split()) + 3 for text in texts)
    for view, own in zip(VIEWS, split_views(found, VIEWS), strict=True):
        torch.testing.assert_close(own, read_by_hand(backbone, tokenizer, view, texts), atol=1e-4, rtol=1e-4)
