"""Matching of the labels of a data set with those of a pipeline."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from transformers_tart.inputs.containers import is_missing
from transformers_tart.inputs.labels import kind_of, plain_label


Label: TypeAlias = int | float | str

MAX_SHOWN = 5  # labels in an error message


def match_labels(
    labels: Sequence[Label],
    names: Sequence[str],
    class_names: Sequence[str] | None = None,
    label_mapping: Mapping[str, Label] | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Match labels (n,) of a data set with the class names of a pipeline.

    Return the class numbers (n,) int64 of the labels, and the number of each name.

    `label_mapping`, the label of the data for each name, decides where it is given. Otherwise strings are the labels
    of the pipeline. Integers are matched through the names of their `ClassLabel` feature, `class_names`, else as
    integers if the labels of the pipeline are integers, else by the order of the labels of the pipeline. Booleans and
    whole floats count as integers.

    Raises:
        ValueError: When a label is missing, or the pipeline cannot give it.
        TypeError: On labels that are neither strings nor integers, booleans or whole floats.
    """
    labels = [_plain(label, i) for i, label in enumerate(labels)]
    given = _labels_of(names, isinstance(labels[0], str), class_names, label_mapping)
    possible = set(given)
    unknown = [label for label in labels if label not in possible]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(labels)} rows have labels that the pipeline cannot give, for example "
            f"{_show(unknown)}; it gives {_show(given)}. Pass examples of all classes, or label_mapping: the data's "
            f"label for each of the pipeline's names {_show(names)}. Leave out rows without a label, often marked -1."
        )
    order: Iterable[Any] = dict.fromkeys(given)
    if not isinstance(labels[0], str):
        order = sorted(order) if class_names is None else range(len(class_names))
    number = {label: i for i, label in enumerate(order)}
    return np.array([number[x] for x in labels]), {name: number[x] for name, x in zip(names, given, strict=True)}


def _plain(label: object, row: int) -> str | int:
    plain = plain_label(label)
    if is_missing(plain):
        raise ValueError(f"Row {row} of the data has no label; leave it out.")
    return plain if kind_of(plain, f"row {row}") == "strings" else int(plain)


def _labels_of(
    names: Sequence[str], strings: bool, class_names: Sequence[str] | None, label_mapping: Mapping[str, Label] | None
) -> list[Label]:
    """Return the label of the data for each name of the pipeline."""
    ids: dict[Label, Label] = {} if class_names is None else {name: i for i, name in enumerate(class_names)}
    labels: list[Label]
    if label_mapping is not None:
        missing = [name for name in names if name not in label_mapping]
        if missing:
            raise ValueError(f"label_mapping lacks {_show(missing)}; it must name all of the pipeline's labels.")
        labels = [ids.get(label_mapping[name], label_mapping[name]) for name in names]
    elif strings:
        labels = list(names)
    elif all(name in ids for name in names):
        labels = [ids[name] for name in names]
    elif all(name.removeprefix("-").isdecimal() for name in names):
        labels = [int(name) for name in names]
    else:
        labels = list(range(len(names))) if class_names is None else list(names)
    if class_names is not None and not set(labels) <= set(ids.values()):
        raise ValueError(
            f"The labels of the pipeline, {_show(names)}, are not those of the data, {_show(class_names)}; pass "
            "label_mapping, the data's label for each of the pipeline's."
        )
    return labels


def _show(labels: Sequence[Label]) -> str:
    distinct = list(dict.fromkeys(labels))
    return str(distinct[:MAX_SHOWN]).removesuffix("]") + (", ...]" if len(distinct) > MAX_SHOWN else "]")
