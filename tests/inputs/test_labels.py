"""Labels of data and pipelines: how they are matched, and what does not match."""

import pytest

from transformers_tart.evaluation.evaluator import match_labels


@pytest.mark.parametrize(
    ("labels", "names", "class_names", "mapping", "references", "classes"),
    [
        (["b", "a"], "ab", None, None, [1, 0], [0, 1]),
        ([1, 0], "ba", ["a", "b"], None, [1, 0], [1, 0]),
        ([2, 0], "ab", ["b", "x", "a"], None, [2, 0], [2, 0]),
        ([1, 0], "01", ["no", "yes"], None, [1, 0], [0, 1]),
        ([5, 2], "25", None, None, [1, 0], [0, 1]),
        ([1, 0], "ba", None, None, [1, 0], [0, 1]),
        ([7, 3], "ab", None, {"a": 7, "b": 3}, [1, 0], [1, 0]),
        ([1, 0], "ab", None, {"a": 1.0, "b": 0.0}, [1, 0], [1, 0]),
        ([1, 0], "ab", ["no", "yes"], {"a": "yes", "b": 0}, [1, 0], [1, 0]),
        (["y", "n"], "abc", None, {"a": "n", "b": "y", "c": "y"}, [1, 0], [0, 1, 1]),
    ],
)
def test__match_labels__labels_that_fit__numbers(
    labels: list, names: str, class_names: list | None, mapping: dict | None, references: list, classes: list
) -> None:
    found, numbers = match_labels(labels, list(names), class_names, mapping)
    assert found.tolist() == references
    assert numbers == dict(zip(names, classes, strict=True))


@pytest.mark.parametrize(
    ("labels", "class_names", "mapping", "message"),
    [
        (["a", "x"], None, None, r"1 of 2 rows have labels .* \['x'\]; it gives \['a', 'b'\].* Pass examples"),
        ([0, 2, 2, -1], None, None, r"3 of 4 rows .* \[2, -1\]; it gives \[0, 1\]"),
        ([0, 1], ["no", "yes"], None, r"\['a', 'b'\], are not those of the data, \['no', 'yes'\]; pass label_mapping"),
        ([0, 1], ["a", "c"], None, "are not those of the data"),
        ([2, 2], ["a", "b", "c"], None, "2 of 2 rows"),
        ([0, 1], None, {"a": 0}, r"label_mapping lacks \['b'\]"),
        ([0, 1], ["no", "yes"], {"a": 0, "b": 2}, "are not those of the data"),
        ([0, None], None, None, "Row 1 of the data has no label"),
        (list(range(20)), None, None, r"\[2, 3, 4, 5, 6, ...\]"),
    ],
)
def test__match_labels__labels_that_do_not_fit__says_which(
    labels: list, class_names: list | None, mapping: dict | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        match_labels(labels, ["a", "b"], class_names, mapping)


@pytest.mark.parametrize(("label", "error"), [(0.5, ValueError), ([1], TypeError), (b"a", TypeError)])
def test__match_labels__no_class__refused(label: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="label of row 0 is"):
        match_labels([label], ["a", "b"])


@pytest.mark.parametrize(
    ("labels", "names"), [([True, False], ["False", "True"]), ([1.0, 0.0], ["0", "1"]), ([1.0, 0.0], ["a", "b"])]
)
def test__match_labels__booleans_and_whole_floats__as_integers(labels: list, names: list[str]) -> None:
    found, numbers = match_labels(labels, names)
    assert found.tolist() == [1, 0]
    assert numbers == {names[0]: 0, names[1]: 1}


def test__match_labels__nan__no_label() -> None:
    with pytest.raises(ValueError, match="Row 1 of the data has no label"):
        match_labels([0, float("nan")], ["a", "b"])
