"""The pipeline: its forms of input, its options, and its support set."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch
from datasets import Dataset, IterableDataset
from helpers.builders import (
    build_backbone,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    save_backbone,
)
from hypothesis import given
from hypothesis import strategies as st
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.pipelines.text_classification import ClassificationFunction

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.embeddings.text import Embedder
from transformers_tart.hints.requests import WITHOUT_CONTENT


pytestmark = pytest.mark.core


TEXTS = make_texts(9, seed=2)
PAIRS = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline of three classes; tests leave its support set as it is."""
    return make_pipeline(examples=make_examples(24, ("a", "b", "c")))


@pytest.fixture(scope="module")
def expected(classify: TartClassificationPipeline) -> list[dict]:
    """Its answers, one text at a time."""
    return [classify(text) for text in TEXTS]


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert [result["label"] for result in found] == [result["label"] for result in expected]
    assert [result["score"] for result in found] == pytest.approx([result["score"] for result in expected], abs=1e-5)


def count_forward_calls(classify: TartClassificationPipeline) -> list[int]:
    """A list that grows by the batch size with each call of the backbone."""
    calls: list[int] = []
    classify.model.backbone.register_forward_hook(
        lambda module, args, kwargs, output: calls.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return calls


def test__call__one_text__label_and_score(classify: TartClassificationPipeline) -> None:
    result = classify(TEXTS[0])
    assert set(result) == {"label", "score"}
    assert result["label"] in ("a", "b", "c")
    assert isinstance(result["score"], float)
    assert 1 / 3 <= result["score"] <= 1


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        numpy.array,
        lambda texts: dict.fromkeys(texts).keys(),
        lambda texts: Dataset.from_dict({"text": texts})["text"],
        lambda texts: Dataset.from_dict({"text": texts}),
        lambda texts: [{"text": text} for text in texts],
    ],
    ids=["list", "tuple", "array", "keys", "column", "dataset", "dicts"],
)
def test__call__many_texts_at_hand__a_list(
    make: Callable, classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    found = classify(make(TEXTS))
    assert isinstance(found, list)
    assert_same(found, expected)


@pytest.mark.parametrize(
    "make",
    [
        iter,
        lambda texts: (text for text in texts),
        lambda texts: KeyDataset(Dataset.from_dict({"text": texts}), "text"),
        lambda texts: (row["text"] for row in IterableDataset.from_generator(lambda: ({"text": t} for t in texts))),
    ],
    ids=["iterator", "generator", "key_dataset", "stream"],
)
@pytest.mark.parametrize("progress_bar", [False, True])
def test__call__texts_that_arrive__an_iterator(
    make: Callable, progress_bar: bool, classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    found = classify(make(TEXTS), progress_bar=progress_bar)
    assert isinstance(found, Iterator)
    assert_same(list(found), expected)


@given(order=st.permutations(range(len(TEXTS))), batch_size=st.integers(1, 10))
def test__call__any_order_and_batch_size__equals_one_at_a_time(
    classify: TartClassificationPipeline, expected: list[dict], order: list[int], batch_size: int
) -> None:
    assert_same(classify([TEXTS[i] for i in order], batch_size=batch_size), [expected[i] for i in order])


def test__call__generator__reads_no_more_than_its_window(classify: TartClassificationPipeline) -> None:
    read: list[int] = []
    results = classify((read.append(i) or f"w{i % 50}" for i in range(1000)), batch_size=2)
    assert read == []
    next(results)
    assert len(read) == 2 * Embedder.batches_per_window
    assert len([next(results) for _ in range(2 * Embedder.batches_per_window - 1)]) == len(read) - 1
    next(results)
    assert len(read) == 4 * Embedder.batches_per_window


def test__call__empty__empty(classify: TartClassificationPipeline) -> None:
    assert classify([]) == []
    assert classify((), top_k=None, progress_bar=True) == []
    assert list(classify(iter([]))) == []


def test__call__pairs__as_one_at_a_time_and_unlike_the_first_text_alone(classify: TartClassificationPipeline) -> None:
    alone = [classify(pair) for pair in PAIRS]
    assert_same(classify(PAIRS), alone)
    assert_same(classify([PAIRS[0], TEXTS[1], PAIRS[2]]), [alone[0], classify(TEXTS[1]), alone[2]])
    assert alone[0] != classify(TEXTS[0])


def test__call__pairs_in_the_support__work(classify: TartClassificationPipeline) -> None:
    examples = [{**pair, "label": "xy"[i % 2]} for i, pair in enumerate(PAIRS)]
    assert classify(PAIRS[0], examples=examples)["label"] in ("x", "y")


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (None, 3), (10, 3)])
def test__call__top_k__that_many_best_first(
    top_k: int | None, count: int, classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    for found in (classify(TEXTS[0], top_k=top_k), classify(TEXTS, top_k=top_k)[0]):
        assert len(found) == count
        assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
        assert_same(found[:1], expected[:1])


@pytest.mark.parametrize(
    ("function", "apply"),
    [
        ("default", lambda logits: logits.softmax(-1)),
        ("softmax", lambda logits: logits.softmax(-1)),
        ("SOFTMAX", lambda logits: logits.softmax(-1)),
        ("sigmoid", torch.sigmoid),
        ("none", lambda logits: logits),
        (ClassificationFunction.SIGMOID, torch.sigmoid),
        (ClassificationFunction.NONE, lambda logits: logits),
    ],
)
def test__call__function_to_apply__is_applied_to_the_logits(
    function: object, apply: Callable, classify: TartClassificationPipeline
) -> None:
    batch = build_tokenizer()(TEXTS[:1], return_tensors="pt")
    scores = apply(classify.model(batch["input_ids"]).logits[0]).tolist()
    found = {r["label"]: r["score"] for r in classify(TEXTS[0], top_k=None, function_to_apply=function)}
    assert [found[name] for name in ("a", "b", "c")] == pytest.approx(scores, abs=1e-5)


def test__construction__options__are_the_defaults_and_calls_win() -> None:
    classify = make_pipeline(compose(views="plain"), top_k=2, function_to_apply="none", batch_size=2)
    calls = count_forward_calls(classify)
    assert len(classify(TEXTS[:5])[0]) == 2
    assert calls == [2, 2, 1]
    assert sum(r["score"] for r in classify(TEXTS[0], top_k=None, function_to_apply="softmax")) == pytest.approx(1.0)
    classify(TEXTS[:5], batch_size=5)
    assert calls[-1] == 5


def test__call__examples__win_and_leave_the_stored_ones(
    classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    other = make_examples(12, ("x", "y"), seed=7)
    fitted = make_pipeline(examples=other)
    assert_same(classify(TEXTS, examples=other), fitted(TEXTS))
    assert_same(classify(TEXTS, examples=fitted.model.support), fitted(TEXTS))
    assert classify.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert_same(classify(TEXTS), expected)


def test__call__examples_without_stored_ones__are_enough() -> None:
    classify = make_pipeline(examples=None)
    assert classify(TEXTS[0], examples=make_examples())["label"] in ("ham", "spam")
    with pytest.raises(ValueError, match="no support set.*examples="):
        classify(TEXTS[0])


def test__set_examples__replaces_and_removes(expected: list[dict]) -> None:
    classify = make_pipeline()
    classify.set_examples(make_examples(24, ("a", "b", "c")))
    assert_same(classify(TEXTS), expected)
    classify.set_examples(None)
    with pytest.raises(ValueError, match="no support set"):
        classify(TEXTS)


def test__support_set__many_calls__encoded_once() -> None:
    classify = make_pipeline(compose(views="plain"), examples=None)
    calls = count_forward_calls(classify)
    classify.set_examples(make_examples(40))
    assert calls == [40 + 2 + len(WITHOUT_CONTENT)]  # with the texts of the labels, and what calibrates the hints
    calls.clear()
    classify(TEXTS)
    classify(TEXTS[0])
    assert calls == [len(TEXTS), 1]


def test__progress_bar__on_stderr_and_complete(
    classify: TartClassificationPipeline, capsys: pytest.CaptureFixture
) -> None:
    classify(TEXTS)
    assert capsys.readouterr() == ("", "")
    for texts in (TEXTS, KeyDataset(Dataset.from_dict({"text": TEXTS}), "text")):
        list(classify(texts, progress_bar=True, examples=make_examples()))
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"{len(TEXTS)}/{len(TEXTS)}" in shown.err.split("classifying")[-1]
        assert "embedding: 100%" in shown.err


@pytest.mark.parametrize(
    "options", [{"padding_side": "left"}, {"pad_token": None}, {"pad_token": None, "eos_token": None}]
)
def test__tokenizer__padding__makes_no_difference(options: dict, expected: list[dict]) -> None:
    examples = make_examples(24, ("a", "b", "c"))
    classify = make_pipeline(tokenizer=build_tokenizer(**options), examples=examples)
    assert_same(classify(TEXTS), expected)
    assert classify.tokenizer.pad_token == (None if "pad_token" in options else "<pad>")


def test__model__folder_of_a_backbone__is_composed_with_its_tokenizer(tmp_path: Path, expected: list[dict]) -> None:
    folder = save_backbone(tmp_path)
    classify = pipeline("tart-classification", model=folder, examples=make_examples(24, ("a", "b", "c")))
    assert classify.model.config.base_model_name_or_path == folder
    assert_same(classify(TEXTS), expected)


def test__model__loaded_backbone__is_composed(expected: list[dict]) -> None:
    classify = make_pipeline(build_backbone("llama"), examples=make_examples(24, ("a", "b", "c")))
    assert isinstance(classify.model, TartForSequenceClassification)
    assert_same(classify(TEXTS), expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"include_backbone": True}])
@pytest.mark.parametrize("tokenizer_options", [{}, {"pad_token": None}])
def test__save_pretrained__loaded__same_answers(
    options: dict, tokenizer_options: dict, tmp_path: Path, classify: TartClassificationPipeline, expected: list[dict]
) -> None:
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"))
    tokenizer = build_tokenizer(**tokenizer_options)
    examples = make_examples(24, ("a", "b", "c"))
    make_pipeline(model, tokenizer=tokenizer, examples=examples).save_pretrained(tmp_path / "task", **options)
    assert tokenizer.pad_token == tokenizer_options.get("pad_token", "<pad>")
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert loaded.tokenizer.pad_token is not None
    assert_same(loaded(TEXTS), expected)


def test__model__without_tokenizer_and_name__says_what_to_pass() -> None:
    with pytest.raises(ValueError, match="names no backbone to take the tokenizer from; pass tokenizer="):
        TartClassificationPipeline(compose())
