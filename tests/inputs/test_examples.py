"""Labeled examples in every form a user may give them; what is wrong with them is in test_bad_input.py."""

import numpy
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from helpers.builders import make_examples
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart.inputs.examples import parse_examples
from transformers_tart.inputs.texts import parse_text


pytestmark = pytest.mark.core


ROWS = [{"text": "b", "label": "spam"}, {"text": "a", "label": "ham"}, {"text": "c", "label": "spam"}]
INTEGERS = st.integers().filter(lambda label: label != -100)
STRINGS = st.text().filter(lambda label: label.strip() not in ("", "-100"))
LABELS = st.one_of(st.lists(INTEGERS, min_size=2), st.lists(STRINGS, min_size=2)).filter(
    lambda labels: len(set(labels)) > 1
)


@pytest.mark.parametrize(
    "examples",
    [
        ROWS,
        tuple(ROWS),
        {"text": ["b", "a", "c"], "label": ["spam", "ham", "spam"]},
        {"label": ("spam", "ham", "spam"), "text": ("b", "a", "c")},
        {"text": ["b", "a", "c"], "label": numpy.array(["spam", "ham", "spam"])},
        Dataset.from_list(ROWS),
        Dataset.from_list([{**row, "id": 7, "split": "train"} for row in ROWS]),
        Dataset.from_list(ROWS).to_iterable_dataset(),
        IterableDataset.from_generator(lambda: iter([{**row, "id": 7} for row in ROWS])),
    ],
    ids=[
        "rows",
        "tuple",
        "columns",
        "tuples",
        "array",
        "dataset",
        "dataset_with_other_columns",
        "stream",
        "generator",
    ],
)
def test__parse_examples__every_form__same(examples: object) -> None:
    parsed = parse_examples(examples)
    assert parsed.inputs == ["b", "a", "c"]
    assert parsed.labels == [1, 0, 1]
    assert parsed.label_names == ("ham", "spam")


def test__parse_examples__class_label__names_and_order_of_the_feature() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["zebra", "ant", "cow"])})
    parsed = parse_examples(Dataset.from_dict({"text": ["x", "y", "z"], "label": [2, 0, 1]}, features=features))
    assert parsed.labels == [2, 0, 1]
    assert parsed.label_names == ("zebra", "ant", "cow")


def test__parse_examples__integers__sorted_as_numbers() -> None:
    parsed = parse_examples({"text": ["x", "y", "z"], "label": [10, 9, 100]})
    assert parsed.labels == [1, 0, 2]
    assert parsed.label_names == ("9", "10", "100")


@pytest.mark.parametrize(
    "labels", [torch.tensor([4, 7]), numpy.array([4, 7]), list(numpy.array([4, 7], dtype="int8"))]
)
def test__parse_examples__labels_of_tensors_and_arrays__are_integers(labels: object) -> None:
    parsed = parse_examples({"text": ["x", "y"], "label": labels})
    assert parsed.labels == [0, 1]
    assert parsed.label_names == ("4", "7")


def test__parse_examples__pairs__become_tuples() -> None:
    rows = [{"text": "a", "text_pair": "b", "label": 0}, {"text": "c", "label": 1}]
    assert parse_examples(rows).inputs == [("a", "b"), "c"]
    assert parse_examples({"text": ["a"] * 2, "text_pair": ["b", "c"], "label": [0, 1]}).inputs == [
        ("a", "b"),
        ("a", "c"),
    ]
    assert parse_examples(Dataset.from_list(rows)).inputs == [("a", "b"), "c"]


def test__parse_examples__input__is_left_as_it_is() -> None:
    rows = [dict(row) for row in ROWS]
    parse_examples(rows)
    assert rows == ROWS


@given(LABELS)
def test__parse_examples__any_labels__are_indices_into_their_sorted_names(labels: list) -> None:
    parsed = parse_examples({"text": ["x"] * len(labels), "label": labels})
    assert [parsed.label_names[index] for index in parsed.labels] == [str(label) for label in labels]
    assert list(parsed.label_names) == [str(label) for label in sorted(set(labels))]


@given(st.permutations(range(8)))
def test__parse_examples__order_of_rows__does_not_change_the_classes(order: list[int]) -> None:
    rows = make_examples(8, ("a", "b", "c"))
    assert parse_examples([rows[i] for i in order]).label_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("item", "expected"),
    [("a", "a"), ("", ""), ({"text": "a"}, "a"), ({"text": "a", "text_pair": None}, "a")]
    + [({"text": "a", "text_pair": "b"}, ("a", "b")), (numpy.str_("a"), "a")],
)
def test__parse_text__valid__text_or_pair(item: object, expected: object) -> None:
    assert parse_text(item, "It") == expected


def test__parse_examples__blank_texts__warned_by_count(all_logs: pytest.LogCaptureFixture) -> None:
    parse_examples({"text": ["", " \n", "x", ("x")], "label": [0, 1, 0, 1]})
    assert "2 of 4 examples have a blank text." in all_logs.messages


def test__parse_examples__contradictions__warned_by_count(all_logs: pytest.LogCaptureFixture) -> None:
    parse_examples({"text": ["x", "x", "y", "y", "z", "z"], "label": [0, 1, 1, 0, 1, 1]})
    assert "2 texts of the examples occur with more than one label." in all_logs.messages


def test__parse_examples__equal_duplicates__are_no_contradiction(all_logs: pytest.LogCaptureFixture) -> None:
    parsed = parse_examples({"text": ["x", "x", "y"], "label": [0, 0, 1]})
    assert len(parsed.inputs) == 3
    assert all_logs.messages == []


def test__parse_examples__class_without_examples__warned_by_count(all_logs: pytest.LogCaptureFixture) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b", "c"])})
    parsed = parse_examples(Dataset.from_dict({"text": ["x", "y"], "label": [0, 2]}, features=features))
    assert parsed.label_names == ("a", "b", "c")
    assert any(message.startswith("1 of 3 classes have no example") for message in all_logs.messages)


def test__candidate_labels__of_examples__are_classes_in_their_order() -> None:
    parsed = parse_examples(make_examples(4), candidate_labels="spam, ham,  other")
    assert parsed.label_names == ("spam", "ham", "other")
    assert parsed.labels == [1, 0, 1, 0]
    numbered = [{**row, "label": i % 2} for i, row in enumerate(make_examples(4))]
    assert parse_examples(numbered, candidate_labels=["1", "0"]).labels == [1, 0, 1, 0]
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes", "never"])})
    rows = Dataset.from_list([{**row, "label": i % 2} for i, row in enumerate(make_examples(4))], features=features)
    assert parse_examples(rows, candidate_labels=["yes", "no"]).labels == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        (["spam", "eggs"], ValueError, "The label of example 0 is 'ham', which is not among the 2 candidate_labels"),
        ("", ValueError, "candidate_labels is empty"),
        ([], ValueError, "candidate_labels is empty"),
        (["ham", "ham"], ValueError, "candidate_labels names two classes 'ham'"),
        (["ham", " "], ValueError, "not blank"),
        (["ham", 3], ValueError, "a name must be a string"),
        ({"ham": 1}, TypeError, "candidate_labels is .* of type dict"),
        (3, TypeError, "candidate_labels is 3 of type int"),
    ],
)
def test__candidate_labels__invalid__named(candidates: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_examples(make_examples(4), candidate_labels=candidates)  # type: ignore[arg-type]


def test__candidate_labels__other_than_chosen_names__refused() -> None:
    with pytest.raises(ValueError, match=r"candidate_labels is .*config.id2label of the model has"):
        parse_examples(make_examples(4), chosen_names=("ham", "spam"), candidate_labels=("spam", "ham"))
