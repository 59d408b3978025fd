"""Lists of labels of examples, and their class numbers."""

from typing import Any

import datasets
import numpy as np
import pytest

from transformers_tart.inputs.examples import parse_examples


def parse(labels: Any, **options: Any) -> Any:
    return parse_examples({"text": [f"text {i}" for i in range(len(labels))], "label": labels}, **options)


@pytest.mark.parametrize("kind", [list, tuple, set, np.array])
def test__label_lists__any_sequence__numbers_in_the_order_of_the_names(kind: Any) -> None:
    found = parse([kind(["b", "a"]), kind(["c"]), kind([])])
    assert found.label_names == ("a", "b", "c")
    assert found.label_lists == [[0, 1], [2], []]
    assert found.labels == []


def test__label_lists__integers_names_and_candidates__as_for_single_labels() -> None:
    found = parse([[3], [1, 3]])
    assert (found.label_names, found.label_kind) == (("1", "3"), "integers")
    assert parse([["b"], ["a", "b"]], candidate_labels="b,a").label_lists == [[0], [0, 1]]
    assert parse([[1], [0]], chosen_names=("no", "yes")).label_names == ("no", "yes")


def test__label_lists__class_label_feature__its_names() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Sequence(datasets.ClassLabel(names=["z", "a"]))}
    )
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [[0], [0, 1]]}, features=features)
    found = parse_examples(rows)
    assert (found.label_names, found.label_lists) == (("z", "a"), [[0], [0, 1]])


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([["a"], "b"], TypeError, "label of example 1 is 'b', and other examples have lists"),
        ([["a"], None], TypeError, "label of example 1 is None"),
        ([["a"], ["b", "b"]], ValueError, "Example 1 has a label twice"),
        ([[0, 1, 1], [1, 0, 0]], ValueError, "not a row with a 0 or 1"),
        ([[], []], ValueError, "All examples have empty lists"),
        ([["a"], ["b", None]], ValueError, "first of them example 1"),
        ([["a"], ["b", 2]], TypeError, "use one kind"),
        ([["a"], [["b"]]], TypeError, "label of example 1 is list"),
    ],
)
def test__label_lists__that_are_none__errors_name_the_example(labels: list, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        parse(labels)


def test__label_lists__known_classes__new_ones_in_order_and_none_at_all() -> None:
    found = parse([["b", "c"], []], known_names=("a", "c"))
    assert (found.label_names, found.label_lists) == (("a", "b", "c"), [[1, 2], []])
    found = parse([[], []], known_names=("a", "c"))
    assert (found.label_names, found.label_lists) == (("a", "c"), [[], []])
    assert parse([[3]], known_names=("2", "10")).label_names == ("2", "3", "10")
    with pytest.raises(ValueError, match="The label of example 1 is 'b', outside"):
        parse([[], ["b"]], known_names=("a", "c"), chosen_names=("a", "c"))
