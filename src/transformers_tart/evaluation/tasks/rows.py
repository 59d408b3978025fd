"""Rows of data sets: how they are read, divided and labeled, whatever they hold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from transformers_tart.evaluation.tasks.registry import TaskSource
from transformers_tart.inputs.tables import read_rows


Row = Mapping[str, Any]

TEST_SHARE = 0.75  # of a file without splits, as the published code has it
SPLIT_SEED = 42
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "validation": "test", "dev": "test"}


def split_of(path: Path) -> str | None:
    """The split that a file or folder is by its name; `None` where it is none."""
    return SPLIT_NAMES.get(path.name.split(".")[0].lower())


def stream_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, one after the other.

    Raises:
        ValueError: When it cannot be read; the message names the line.
    """
    return read_rows(str(path))


def divide(count: int) -> tuple[list[int], list[int]]:
    """Indices for training and for tests of rows without splits, by a fixed seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    tests = round(TEST_SHARE * count)
    return order[tests:], order[:tests]


def splits_of(column: Sequence[object], path: Path) -> tuple[list[int], list[int]]:
    """Indices for training and for tests, by a column that names the split of each row.

    Raises:
        ValueError: On other names.
    """
    unknown = sorted({str(value) for value in column} - set(SPLIT_NAMES))
    if unknown:
        raise ValueError(f"The column split of {path} holds {unknown}; it must hold one of {sorted(SPLIT_NAMES)}.")
    train, test = (
        [i for i, value in enumerate(column) if SPLIT_NAMES[str(value)] == split] for split in ("train", "test")
    )
    return train, test


def name_label(name: str, value: object, source: TaskSource, class_names: Sequence[str] | None) -> str:
    """The name of the class of a row.

    Raises:
        ValueError: When the row has no label, or one outside the names of the data set.
    """
    if value is None or value == "":
        raise ValueError(f"A row of {name} has no label in the column {source.label}.")
    if source.threshold is not None:
        return "1" if float(str(value)) >= source.threshold else "0"
    label = str(value)
    if class_names is not None and isinstance(value, int):
        if not 0 <= value < len(class_names):
            raise ValueError(
                f"A row of {name} has the label {value}, outside the {len(class_names)} names of classes."
            )
        label = class_names[value]
    if source.positive is None:
        return label
    return label if label == source.positive else f"not {source.positive}"


def order_classes(found: Collection[str], source: TaskSource, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """The classes in the order of the task, else of the data set, else sorted."""
    if source.positive is not None:
        return f"not {source.positive}", source.positive
    if source.threshold is not None:
        return "0", "1"
    if source.classes is not None:
        return source.classes
    return tuple(label for label in class_names or sorted(found, key=_natural) if label in found)


def _natural(label: str) -> tuple[int, int, str]:
    """Numbers in their order, before words."""
    return (0, int(label), "") if label.lstrip("-").isdecimal() else (1, 0, label)


__all__ = [
    "SPLIT_NAMES",
    "SPLIT_SEED",
    "Row",
    "divide",
    "name_label",
    "order_classes",
    "split_of",
    "splits_of",
    "stream_rows",
]
