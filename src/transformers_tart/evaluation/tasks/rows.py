"""Labeled rows of data sets and folders: their splits, their classes, and the task that is built from them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from transformers_tart.checks.arguments import shorten
from transformers_tart.evaluation.tasks.registry import TaskSource
from transformers_tart.evaluation.tasks.task import Item, Task, draw_with_shares
from transformers_tart.inputs.labels import check_spaces, kind_of
from transformers_tart.inputs.modality import MODALITIES, Modality


if TYPE_CHECKING:
    from datasets import Dataset


# Images and recordings of which support sets are drawn. It bounds the memory: 160 MB for Speech Commands.
MAX_TRAIN = 5000
TEST_SHARE = 0.75  # of rows without splits, as in the published code
SPLIT_SEED = 42
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "validation": "test", "dev": "test"}
ENDINGS = {suffix: each for each in MODALITIES for suffix in each.suffixes}


@dataclass(frozen=True)
class Rows:
    """Labeled rows of one split, which are read when they are drawn."""

    labels: Sequence[object]  # as in the data set
    read: Callable[[Sequence[int]], list[Item]]  # from indices of rows to their texts or encoded files

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, items: Sequence[Item], labels: Sequence[object]) -> "Rows":
        """Build rows of items in memory."""
        return cls(labels, lambda indices: [items[i] for i in indices])

    @classmethod
    def join(cls, parts: Sequence["Rows"]) -> "Rows":
        """Concatenate the rows of several files."""
        places = [(part, i) for part in parts for i in range(len(part))]

        def read(indices: Sequence[int]) -> list[Item]:
            found: dict[int, Item] = {}
            for part in parts:
                wanted = [i for i in indices if places[i][0] is part]
                found.update(zip(wanted, part.read([places[i][1] for i in wanted]), strict=True))
            return [found[i] for i in indices]

        return cls([label for part in parts for label in part.labels], read)

    def select(self, indices: Sequence[int]) -> "Rows":
        """Select rows."""
        return Rows([self.labels[i] for i in indices], lambda chosen: self.read([indices[i] for i in chosen]))


@dataclass(frozen=True)
class Splits:
    """Rows from which a task is built."""

    modality: Modality
    train: Rows
    test: Rows | None = None  # `None` to take three quarters of `train`
    class_names: Sequence[str] | None = None  # of labels that are numbers, in order, if the data set has them


def build_task(name: str, data: Splits, source: TaskSource, max_test: int | None, seed: int) -> Task:
    """Build a task; of images and recordings only those are read that are drawn, at most `max_test` to classify."""
    if data.test is not None:
        splits = [data.train, data.test]
    else:
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
        tests = round(TEST_SHARE * len(order))
        splits = [data.train.select(order[tests:]), data.train.select(order[:tests])]
    named = [[_name_label(name, label, source, data.class_names) for label in rows.labels] for rows in splits]
    found = {label for column in named for label in column}
    check_spaces(sorted(found))
    absent = sorted(set(source.classes or ()) - found)
    if absent:
        raise ValueError(f"{name} has no rows of the classes {absent}; its classes are {sorted(found)}.")
    number = {label: i for i, label in enumerate(_order_classes(found, source, data.class_names))}
    limits = (None, None) if data.modality.is_tokenized else (MAX_TRAIN, max_test)
    drawn = []
    for column, limit, split_seed in zip(named, limits, (SPLIT_SEED, seed), strict=True):
        kept = [i for i, label in enumerate(column) if label in number]
        chosen = draw_with_shares([number[column[i]] for i in kept], limit, split_seed)
        drawn.append([kept[i] for i in chosen])
    labels = [[number[column[i]] for i in places] for column, places in zip(named, drawn, strict=True)]
    items = [rows.read(places) for rows, places in zip(splits, drawn, strict=True)]
    return Task(name, tuple(number), items[0], labels[0], items[1], labels[1], data.modality)


def split_of(path: Path) -> str | None:
    """Return the split that a file or folder is named after, if any."""
    return SPLIT_NAMES.get(path.name.split(".")[0].lower())


def _name_label(name: str, value: object, source: TaskSource, class_names: Sequence[str] | None) -> str:
    if value is None or not str(value).strip():
        raise ValueError(f"A row of {name} has no label in the column {source.label}.")
    if isinstance(value, (list, tuple, set)):
        raise ValueError(
            f"A row of {name} has the labels {shorten(value)}; methods are compared on rows with one label each. "
            "Choose a column of single labels."
        )
    if source.threshold is not None:
        return "1" if float(str(value)) >= source.threshold else "0"
    if kind_of(value, f"a row of {name}") == "integers":
        value = int(str(value).removesuffix(".0"))
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


def read_folders(path: Path) -> Splits | None:
    """Read a folder for each class, perhaps inside folders of splits; `None` without folders and media files."""
    folders = _subfolders(path)
    if not folders and not _media_files(path):
        return None
    named = [folder for folder in folders if split_of(folder)]
    # a class may be called "train", but then there are others and it holds files
    if folders and (len(named) == len(folders) or any(_subfolders(folder) for folder in named)):
        splits = {split: [f for f in named if split_of(f) == split] for split in ("train", "test")}
        if not all(splits.values()):
            raise ValueError(
                f"The folder {path} must hold a folder train and a folder test, or a folder for each class; it holds "
                f"{[folder.name for folder in folders]}. Names of splits are {sorted(SPLIT_NAMES)}."
            )
        files = {split: [file for f in parents for file in _class_files(f)] for split, parents in splits.items()}
    else:
        files = {"train": _class_files(path)}
    modalities = {ENDINGS[file.suffix.lower()] for found in files.values() for file in found}
    if len(modalities) > 1:
        found = " and ".join(each.plural for each in MODALITIES if each in modalities)
        raise ValueError(f"The folder {path} holds {found}; a task has one of them.")
    rows = {split: _file_rows(found) for split, found in files.items()}
    return Splits(modalities.pop(), rows["train"], rows.get("test"))


def _subfolders(path: Path) -> list[Path]:
    return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]


def _media_files(path: Path) -> list[Path]:
    return [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix.lower() in ENDINGS]


def _class_files(folder: Path) -> list[Path]:
    """Return the files of all classes, each in the folder of its class."""
    classes, loose = _subfolders(folder), [file.name for file in _media_files(folder)]
    if loose or not classes:
        raise ValueError(
            f"The folder {folder} must hold a folder for each class, named as the class; it holds the files "
            f"{loose[:3]} and the folders {[own.name for own in classes]}."
        )
    files = []
    for own in classes:
        found = [file for file in sorted(own.iterdir()) if not file.name.startswith(".")]
        odd = [file.name for file in found if not file.is_file() or file.suffix.lower() not in ENDINGS]
        if odd or not found:
            raise ValueError(
                f"The folder {own} of a class holds {odd[:3] if odd else 'no files'}; it must hold files with the "
                f"endings {sorted(ENDINGS)}, and nothing else."
            )
        files.extend(found)
    return files


def _file_rows(files: Sequence[Path]) -> Rows:
    return Rows([file.parent.name for file in files], lambda indices: [_read_file(files[i]) for i in indices])


def dataset_rows(split: "Dataset", column: str, label: str, modality: Modality, where: str) -> Rows:
    """Read the labels of a data set; its images or recordings are read when drawn, and never decoded."""
    encoded = modality.keep_encoded(split.select_columns([column]), column)
    return Rows(
        split.select_columns([label])[:][label],
        lambda indices: [read_cell(row[column], where) for row in encoded.select(indices)],
    )


def read_cell(cell: object, where: str, folder: Path | None = None) -> bytes:
    """Return the encoded file of a row, given as bytes, as a path relative to `folder`, or as `{"bytes", "path"}`."""
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
        raise ValueError(f"A row of {where} names the file {file}, which does not exist; correct the path.")
    return _read_file(file)


def _read_file(file: Path) -> bytes:
    content = file.read_bytes()
    if not content:
        raise ValueError(f"The file {file} is empty; leave it out.")
    return content
