"""What users get wrong: each mistake is a clear error that says what to do, or works with a warning."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from helpers.builders import build_reasoner, compose, make_examples, make_pipeline, make_texts, shared_reasoner

from transformers_tart import TartClassificationPipeline
from transformers_tart.inputs.examples import parse_examples
from transformers_tart.inputs.texts import parse_text


pytestmark = pytest.mark.core


FORMS = r'give a list of \{"text": ..., "label": ...\} or \(text, label\), a dict of the columns'


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline; tests leave its support set as it is."""
    return make_pipeline()


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([], ValueError, FORMS),
        ({}, ValueError, FORMS),
        ({"text": [], "label": []}, ValueError, f"There are no examples; {FORMS}"),
        (Dataset.from_dict({"text": [], "label": []}), ValueError, f"There are no examples; {FORMS}"),
        ("a text", TypeError, f"The examples are str; {FORMS}"),
        (3, TypeError, f"The examples are int; {FORMS}"),
        (["a", "b"], TypeError, f"Example 0 is str; {FORMS}"),
        ([("a", 0, 1), ("b", 1, 1)], TypeError, f"Example 0 is tuple; {FORMS}"),
        ([["a", 0], ["b", 1]], TypeError, f"Example 0 is list; {FORMS}"),
        ([{"text": "a", "label": 0}], ValueError, "All 1 examples have one label; .* at least two classes"),
        ({"text": ["a", "b"], "label": ["x", "x"]}, ValueError, "All 2 examples have one label"),
        ({"text": ["a", "b"], "label": [0]}, ValueError, r"unequal lengths: \{'text': 2, 'label': 1\}"),
        ({"text": ["a", "b"]}, ValueError, r"without \['label'\]; give label_column=\.\.\., or rename"),
        ({"label": [0, 1]}, ValueError, r"without \['text'\]; give text_column=\.\.\., or rename"),
        ([{"text": "a", "label": 0}, {"text": "b"}], ValueError, r"Example 1 .* \['text'\], without \['label'\]"),
        ({"sentence": ["a"], "label": [0]}, ValueError, r"columns \['sentence', 'label'\], without \['text'\]"),
        (Dataset.from_dict({"sentence": ["a"], "label": [0]}), ValueError, r"columns \['sentence', 'label'\], w"),
        (DatasetDict({"dev": Dataset.from_list(make_examples(4))}), ValueError, r"\['dev'\]; choose one"),
        ({"text": ["a", "b"], "label": [0, "x"]}, TypeError, "Some labels are strings and some are integers"),
        ({"text": ["a", "b"], "label": [0.0, 0.5]}, ValueError, "example 1 is 0.5; labels are classes, so numbers"),
        ({"text": ["a", "b"], "label": [0, float("inf")]}, ValueError, "label of example 1 is inf"),
        ({"text": ["a", "b"], "label": [0, True]}, TypeError, "Some labels are integers and some are booleans"),
        ({"text": ["a", "b"], "label": [b"x", b"y"]}, TypeError, "example 0 is bytes; labels are strings"),
        ({"text": "Yes!", "label": "spam"}, TypeError, 'column "text" of the examples is a single str; give a list'),
        ({"text": ["a", "b"], "label": "ab"}, TypeError, 'column "label" of the examples is a single str'),
        ({"text": ["a", "b"], "label": b"ab"}, TypeError, 'column "label" of the examples is a single bytes'),
        ({"text": {"a": 1, "b": 2}, "label": [0, 1]}, TypeError, 'column "text" of the examples is a single dict'),
        ({"text": ["a", "b"], "label": {0, 1}}, TypeError, 'column "label" of the examples is a single set'),
        ({"text": ["a", "b"], "label": 1}, TypeError, 'column "label" of the examples is a single int'),
        ({"text": ["a", "b"], "label": numpy.array(1)}, TypeError, 'column "label" .* is a single ndarray'),
        ({"text": ["a", "b"], "label": [{"x": 1}, {"y": 1}]}, TypeError, "example 0 is dict; labels are strings"),
        ({"text": ["a", "b"], "label": [["x"], "y"]}, TypeError, "example 1 is 'y', and other examples have lists"),
        ({"text": ["a", None], "label": [0, 1]}, TypeError, "text of example 1 is NoneType; a text must be a string"),
        ({"text": ["a", 5], "label": [0, 1]}, TypeError, "text of example 1 is int; a text must be a string"),
        ({"text": ["a", b"b"], "label": [0, 1]}, TypeError, "text of example 1 is bytes; a text must be a string"),
        ({"text": ["a", "b"], "text_pair": ["c", 1], "label": [0, 1]}, TypeError, "text_pair of .*example 1 is int"),
    ],
)  # fmt: skip
def test__examples__invalid__clear_error(
    examples: object, error: type[Exception], message: str, classify: TartClassificationPipeline
) -> None:
    stored = classify.model.support
    for use in (parse_examples, classify.set_examples, lambda given: classify("w1", examples=given)):
        with pytest.raises(error, match=message):
            use(examples)
    assert classify.model.support is stored


@pytest.mark.parametrize(
    "label", [None, float("nan"), numpy.nan, pandas.NA, pandas.NaT, "", " ", "-100", -100, numpy.int64(-100), -100.0]
)
def test__examples__unlabeled_rows__counted(label: object) -> None:
    known = ["x", "y"] if isinstance(label, str) else [0, 1]
    with pytest.raises(ValueError, match="2 of 4 examples have no label, the first of them example 1 .* drop them"):
        parse_examples({"text": ["a", "b", "c", "d"], "label": [known[0], label, known[1], label]})


def test__examples__minus_one_of_a_class_label__is_unlabeled() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["x", "y"])})
    data = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, -1, 1]}, features=features)
    with pytest.raises(ValueError, match=r"1 of 3 examples have no label, the first of them example 1 \(-1\)"):
        parse_examples(data)


@pytest.mark.parametrize("label", [-2, 7])
def test__examples__label_outside_the_class_label_feature__clear_error(label: int) -> None:
    features = Features({"text": Value("string"), "label": Value("int64")})
    data = Dataset.from_dict({"text": ["a", "b"], "label": [0, label]}, features=features)
    data.info.features["label"] = ClassLabel(names=["x", "y"])
    with pytest.raises(ValueError, match=f"label of example 1 is {label}, outside the 2 names of its ClassLabel"):
        parse_examples(data)


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        (3, TypeError, "It is int; a text must be a string"),
        (None, TypeError, "It is NoneType"),
        (b"a", TypeError, "It is bytes"),
        (["a"], TypeError, "It is list"),
        (("a", "b"), TypeError, "It is tuple"),
        ({"text": 3}, TypeError, "It is int"),
        ({"text": "a", "text_pair": 3}, TypeError, "The text_pair of It is int"),
        ({"text_pair": "a"}, ValueError, r'It has the keys .*must have "text" and may have "text_pair"'),
        ({"text": "a", "label": 0}, ValueError, r"It has the keys \['label', 'text'\]"),
    ],
)
def test__parse_text__invalid__names_the_place(item: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_text(item, "It")


@pytest.mark.parametrize("inputs", [3, None, 2.5, b"bytes", object()])
def test__call__no_text__says_what_to_give(inputs: object, classify: TartClassificationPipeline) -> None:
    with pytest.raises(TypeError, match="The input is .*; give a text, a list of texts or a generator of texts"):
        classify(inputs)


@pytest.mark.parametrize("make", [list, tuple, iter])
def test__call__a_text_that_is_none__names_its_place(make: Callable, classify: TartClassificationPipeline) -> None:
    with pytest.raises(TypeError, match="Input 2 is int; a text must be a string"):
        list(classify(make(["w1", "w2", 3])))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k is 0; it must be at least 1, or None for all classes"),
        ({"top_k": -1}, ValueError, "top_k is -1"),
        (
            {"function_to_apply": "argmax"},
            ValueError,
            'argmax.; it must be "default", "softmax", "sigmoid" or "none"',
        ),
        ({"batch_size": -1}, ValueError, "batch_size is -1; it must be at least 1"),
        ({"tok_k": 3}, TypeError, "tok_k"),
    ],
)
def test__call__invalid_option__clear_error(
    options: dict, error: type[Exception], message: str, classify: TartClassificationPipeline
) -> None:
    with pytest.raises(error, match=message):
        classify(["w1"], **options)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b", "\x00"])
def test__call__blank_text__gets_an_answer(text: str, classify: TartClassificationPipeline) -> None:
    alone = classify(text)
    assert 0.5 <= alone["score"] <= 1
    assert classify(["w1 w2 w3", text])[1] == pytest.approx(alone)


def test__examples__blank_text__works_and_is_warned_of(all_logs: pytest.LogCaptureFixture) -> None:
    classify = make_pipeline(examples=[*make_examples(), {"text": "", "label": "ham"}])
    assert "1 of 13 examples have a blank text." in all_logs.messages
    assert classify("w1")["label"] in ("ham", "spam")


def test__examples__duplicates_and_contradictions__work_and_are_counted(all_logs: pytest.LogCaptureFixture) -> None:
    rows = make_examples(6)
    opposite = [{**row, "label": {"ham": "spam", "spam": "ham"}[row["label"]]} for row in rows[:2]]
    classify = make_pipeline(examples=rows * 2 + opposite)
    assert "2 texts of the examples occur with more than one label." in all_logs.messages
    assert 0.5 <= classify("w1")["score"] <= 1


def test__examples__every_text_under_every_label__undecided() -> None:
    rows = make_examples(6)
    both = [{**row, "label": label} for row in rows for label in ("ham", "spam")]
    assert make_pipeline(examples=both)("w1")["score"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.slow
def test__call__text_of_a_megabyte__truncated_in_reasonable_time(
    classify: TartClassificationPipeline, all_logs: pytest.LogCaptureFixture
) -> None:
    long = " ".join(make_texts(30_000, max_words=20))[:1_000_000]
    assert len(long) == 1_000_000
    start = time.monotonic()
    results = classify(["w1", long])
    assert time.monotonic() - start < 20
    assert results[1] == pytest.approx(classify(" ".join(long.split()[:64])))
    # fewer than the 64 of the backbone, which the templates of the views share
    warned = re.compile(r"Some texts are longer than \d+ tokens; they are truncated\.")
    assert any(map(warned.fullmatch, all_logs.messages))


def test__call__unusual_characters__get_an_answer(classify: TartClassificationPipeline) -> None:
    texts = ["naïve", "日本語", "🙂" * 50, "a\u0301", "\u202eright to left", "<pad> <s> </s>", "w1\x00w2"]
    assert all(0.5 <= result["score"] <= 1 for result in classify(texts))


def test__pipeline__broken_backbone__error_names_it() -> None:
    classify = make_pipeline()
    # an overflow, of weights that are as they were
    classify.model.backbone.norm.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    with pytest.raises(ValueError, match="backbone gives NaN or infinite embeddings"):
        classify(["w1", "w2"])
    with pytest.raises(ValueError, match="The support embeddings hold NaN or infinite values"):
        classify.set_examples(make_examples())


def test__pipeline__constant_embeddings__error_says_so() -> None:
    classify = make_pipeline(compose(pooling="mean"), examples=None)
    classify.model.backbone.embed_tokens.weight.data[:] = 1.0
    with pytest.raises(ValueError, match="All support embeddings are equal"):
        classify("w1", examples=make_examples())


def test__pipeline__folder_of_a_reasoner__says_what_it_is(tmp_path: Path) -> None:
    from transformers import pipeline

    build_reasoner().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a TART model or reasoner, not a backbone"):
        pipeline("tart-classification", model=str(tmp_path), examples=make_examples())


def test__query__other_width_than_the_support__said() -> None:
    for reasoner in (shared_reasoner(), build_reasoner("gpt2")):
        state = reasoner.prepare(torch.randn(1, 8, 12), torch.tensor([[0, 1] * 4]))
        with pytest.raises(ValueError, match="12"):
            reasoner.query(state, torch.randn(1, 3, 13))


def test__classify__nested_text__type_error() -> None:
    with pytest.raises(TypeError, match="a text must be a string"):
        parse_text({"text": {"text": "a"}, "text_pair": "b"}, "Input 0")
