"""Tasks of images and recordings: labels are read first, and of the files only those that are drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers_tart.evaluation.tasks.registry import TaskSource
from transformers_tart.evaluation.tasks.rows import SPLIT_SEED, divide, name_label, order_classes
from transformers_tart.evaluation.tasks.task import Item, Task, draw_with_shares


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

# Support sets are drawn from so many at most, which bounds the memory: of Speech Commands they take 160 MB.
MAX_TRAIN = 5000


@dataclass(frozen=True)
class MediaRows:
    """Labeled images or recordings of one split.

    Attributes:
        labels: n labels as the data set has them.
        read: gives the encoded files of the rows with these indices.
    """

    labels: Sequence[object]
    read: Callable[[Sequence[int]], list[bytes]]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int]) -> "MediaRows":
        """Some of the rows."""
        return MediaRows([self.labels[i] for i in indices], lambda chosen: self.read([indices[i] for i in chosen]))


@dataclass(frozen=True)
class MediaData:
    """Images or recordings from which a task is made.

    Attributes:
        modality: `"image"` or `"audio"`.
        train: rows for support sets.
        test: rows that are classified; `None`: three quarters of `train`.
        class_names: names of the labels that are numbers, in order, where the data set has them.
    """

    modality: str
    train: MediaRows
    test: MediaRows | None = None
    class_names: tuple[str, ...] | None = None


def concatenate(parts: Sequence[MediaRows]) -> MediaRows:
    """The rows of several files, one after the other."""
    places = [(part, i) for part in parts for i in range(len(part))]

    def read(indices: Sequence[int]) -> list[bytes]:
        found: dict[int, bytes] = {}
        for part in parts:
            wanted = [i for i in indices if places[i][0] is part]
            found.update(zip(wanted, part.read([places[i][1] for i in wanted]), strict=True))
        return [found[i] for i in indices]

    return MediaRows([label for part in parts for label in part.labels], read)


def build_media_task(name: str, data: MediaData, source: TaskSource, max_test: int | None, seed: int) -> Task:
    r"""
    Draw the rows of a task by their labels, and read them.

    Args:
        name (`str`):
            Of the task.
        data ([`MediaData`]):
            All rows.
        source ([`TaskSource`]):
            Says which classes are kept, and what they are called.
        max_test (`int`, *optional*):
            Most rows that are classified; all when not given.
        seed (`int`):
            Seed of their draw. That of the `MAX_TRAIN` training rows is fixed.

    Returns:
        [`Task`]: both splits with the shares of the classes.

    Raises:
        ValueError: On missing labels, classes or files.
    """
    if data.test is None:
        splits = [data.train.select(places) for places in divide(len(data.train))]
    else:
        splits = [data.train, data.test]
    named = [[name_label(name, label, source, data.class_names) for label in rows.labels] for rows in splits]
    found = {label for column in named for label in column}
    absent = sorted(set(source.classes or ()) - found)
    if absent:
        raise ValueError(f"{name} has no rows of the classes {absent}; its classes are {sorted(found)}.")
    number = {label: i for i, label in enumerate(order_classes(found, source, data.class_names))}
    drawn = [
        _draw([number.get(label) for label in column], count, draw)
        for column, count, draw in zip(named, (MAX_TRAIN, max_test), (SPLIT_SEED, seed), strict=True)
    ]
    labels = [[number[column[i]] for i in places] for column, places in zip(named, drawn, strict=True)]
    items: list[list[Item]] = [[*rows.read(places)] for rows, places in zip(splits, drawn, strict=True)]
    return Task(name, tuple(number), items[0], labels[0], items[1], labels[1], data.modality)


def _draw(labels: Sequence[int | None], count: int | None, seed: int) -> list[int]:
    """Indices of rows of the classes that are kept, with their shares."""
    kept = [(i, label) for i, label in enumerate(labels) if label is not None]
    return [kept[i][0] for i in draw_with_shares([label for _, label in kept], count, seed)]


def hub_media(data: "DatasetDict", source: TaskSource, class_names: Sequence[str] | None) -> MediaData:
    """The images or recordings of a data set of the Hub, none of which is decoded.

    Raises:
        ValueError: When they are in another column.
    """
    splits = {split: _hub_rows(data[split], source) for split in (source.train, source.test) if split is not None}
    test = None if source.test is None else splits[source.test]
    return MediaData(source.modality, splits[source.train], test, None if class_names is None else tuple(class_names))


def _hub_rows(split: "Dataset", source: TaskSource) -> MediaRows:
    from datasets import Audio, Image

    column = source.input or source.modality
    missing = [name for name in (column, source.label) if name not in split.column_names]
    if missing:
        raise ValueError(f"{source.path} has the columns {split.column_names}, without {missing}.")
    # without decoding neither Pillow nor torchcodec is needed
    feature = Image(decode=False) if source.modality == "image" else Audio(decode=False)
    encoded = split.select_columns([column]).cast_column(column, feature)

    def read(indices: Sequence[int]) -> list[bytes]:
        return [read_cell(row[column], source.path) for row in encoded.select(indices)]

    return MediaRows(split.select_columns([source.label])[:][source.label], read)


def read_cell(cell: object, where: str, folder: Path | None = None) -> bytes:
    r"""
    The encoded file of a row.

    Args:
        cell (`bytes`, `str` or `dict`):
            The file, its path, or either, as `{"bytes", "path"}`.
        where (`str`):
            The data set, for messages.
        folder (`Path`, *optional*):
            Where relative paths begin.

    Raises:
        ValueError: When there is no such file, or nothing in it.
    """
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return cell
    if not isinstance(cell, str) or not cell:
        raise ValueError(
            f"A row of {where} holds {type(cell).__name__}; it must hold the bytes of an encoded file, or its path."
        )
    file = Path(cell) if folder is None else folder / cell
    if not file.is_file():
        raise ValueError(f"A row of {where} names the file {file}, which is not there; correct the path.")
    return read_file(file)


def read_file(file: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: When it is empty.
    """
    content = file.read_bytes()
    if not content:
        raise ValueError(f"The file {file} is empty; leave it out.")
    return content


__all__ = [
    "MAX_TRAIN",
    "MediaData",
    "MediaRows",
    "build_media_task",
    "concatenate",
    "hub_media",
    "read_cell",
    "read_file",
]
