"""Labeled rows of data sets: their splits, their classes, and the task that is built from them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from transformers_tart.evaluation.tasks.registry import TaskSource
from transformers_tart.evaluation.tasks.task import Item, Task, draw_with_shares
from transformers_tart.inputs.modality import Modality


# Images and recordings of which support sets are drawn. It bounds the memory: 160 MB for Speech Commands.
MAX_TRAIN = 5000
TEST_SHARE = 0.75  # of rows without splits, as in the published code
SPLIT_SEED = 42
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "validation": "test", "dev": "test"}


@dataclass(frozen=True)
class Rows:
    """Labeled rows of one split.

    Attributes:
        labels: n labels, as in the data set.
        read: function from indices of rows to their texts or encoded files.
    """

    labels: Sequence[object]
    read: Callable[[Sequence[int]], list[Item]]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, items: Sequence[Item], labels: Sequence[object]) -> "Rows":
        """Build rows of items in memory."""
        return cls(labels, lambda indices: [items[i] for i in indices])

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """Concatenate the rows of several files."""
        return cls([label for part in parts for label in part.labels], partial(_read_parts, parts))

    def select(self, indices: Sequence[int]) -> "Rows":
        """Select rows."""
        return Rows([self.labels[i] for i in indices], lambda chosen: self.read([indices[i] for i in chosen]))


def _read_parts(parts: Sequence[Rows], indices: Sequence[int]) -> list[Item]:
    places = [(part, i) for part in parts for i in range(len(part))]
    found: dict[int, Item] = {}
    for part in parts:
        wanted = [i for i in indices if places[i][0] is part]
        found.update(zip(wanted, part.read([places[i][1] for i in wanted]), strict=True))
    return [found[i] for i in indices]


@dataclass(frozen=True)
class Splits:
    """Rows from which a task is built.

    Attributes:
        modality: what is classified.
        train: rows for support sets.
        test: rows to classify; `None` to take three quarters of `train`.
        class_names: names of labels that are numbers, in order, if the data set has them.
    """

    modality: Modality
    train: Rows
    test: Rows | None = None
    class_names: Sequence[str] | None = None


def build_task(name: str, data: Splits, source: TaskSource, max_test: int | None, seed: int) -> Task:
    """Build a task; images and recordings are drawn by their labels, and only those that are drawn are read.

    `max_test` and `seed` are of the draw of images or recordings to classify.

    Raises:
        ValueError: On missing labels, classes or files.
    """
    if data.test is None:
        splits = [data.train.select(places) for places in _divide(len(data.train))]
    else:
        splits = [data.train, data.test]
    named = [[_name_label(name, label, source, data.class_names) for label in rows.labels] for rows in splits]
    found = {label for column in named for label in column}
    absent = sorted(set(source.classes or ()) - found)
    if absent:
        raise ValueError(f"{name} has no rows of the classes {absent}; its classes are {sorted(found)}.")
    number = {label: i for i, label in enumerate(_order_classes(found, source, data.class_names))}
    limits = (None, None) if data.modality.is_tokenized else (MAX_TRAIN, max_test)
    drawn = [
        _draw([number.get(label) for label in column], limit, draw)
        for column, limit, draw in zip(named, limits, (SPLIT_SEED, seed), strict=True)
    ]
    labels = [[number[column[i]] for i in places] for column, places in zip(named, drawn, strict=True)]
    items = [rows.read(places) for rows, places in zip(splits, drawn, strict=True)]
    return Task(name, tuple(number), items[0], labels[0], items[1], labels[1], data.modality)


def _draw(labels: Sequence[int | None], count: int | None, seed: int) -> list[int]:
    """Draw rows of the classes that are kept, with their shares."""
    kept = [(i, label) for i, label in enumerate(labels) if label is not None]
    return [kept[i][0] for i in draw_with_shares([label for _, label in kept], count, seed)]


def split_of(path: Path) -> str | None:
    """Return the split that a file or folder is named after, if any."""
    return SPLIT_NAMES.get(path.name.split(".")[0].lower())


def _divide(count: int) -> tuple[list[int], list[int]]:
    """Divide rows without splits into training and test indices, by a fixed seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    tests = round(TEST_SHARE * count)
    return order[tests:], order[:tests]


def splits_of(column: Sequence[object], path: Path) -> tuple[list[int], list[int]]:
    """Return training and test indices by a column of split names.

    Raises:
        ValueError: On unknown names.
    """
    unknown = sorted({str(value) for value in column} - set(SPLIT_NAMES))
    if unknown:
        raise ValueError(f"The column split of {path} holds {unknown}; it must hold one of {sorted(SPLIT_NAMES)}.")
    train, test = (
        [i for i, value in enumerate(column) if SPLIT_NAMES[str(value)] == split] for split in ("train", "test")
    )
    return train, test


def _name_label(name: str, value: object, source: TaskSource, class_names: Sequence[str] | None) -> str:
    if value is None or value == "":
        raise ValueError(f"A row of {name} has no label in the column {source.label}.")
    if source.threshold is not None:
        return "1" if float(str(value)) >= source.threshold else "0"
    label = str(value)
    if class_names is not None and isinstance(value, int):
        if not 0 <= value < len(class_names):
            raise ValueError(f"A row of {name} has the label {value}; the classes have {len(class_names)} names.")
        label = class_names[value]
    if source.positive is None:
        return label
    return label if label == source.positive else f"not {source.positive}"


def _order_classes(found: Collection[str], source: TaskSource, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Order the classes as in the task, else as in the data set, else sorted."""
    if source.positive is not None:
        return f"not {source.positive}", source.positive
    if source.threshold is not None:
        return "0", "1"
    if source.classes is not None:
        return source.classes
    return tuple(label for label in class_names or sorted(found, key=_natural) if label in found)


def _natural(label: str) -> tuple[int, int, str]:
    """Return a sort key with numbers by value, before words."""
    return (0, int(label), "") if label.lstrip("-").isdecimal() else (1, 0, label)


__all__ = ["MAX_TRAIN", "SPLIT_NAMES", "Rows", "Splits", "build_task", "split_of", "splits_of"]
