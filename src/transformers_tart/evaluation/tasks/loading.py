"""Loads tasks by name, from a file, or from a folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from transformers_tart.evaluation.tasks.registry import GROUPS, TASKS, TaskSource
from transformers_tart.evaluation.tasks.task import Task
from transformers_tart.examples import Text, parse_text
from transformers_tart.tables import FORMATS, open_table


Row = Mapping[str, Any]

TEST_SHARE = 0.75  # of a file without splits, as the published code has it
SPLIT_SEED = 42
SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "validation": "test", "dev": "test"}


def load_task(name: str, max_test: int | None = None, seed: int = 0) -> Task:
    r"""
    Load a task.

    Args:
        name (`str`):
            A name of the registry; a csv, tsv, json, jsonl or parquet file (.gz too) with the columns `text`, `label`
            and perhaps `text_pair` and `split`; or a folder with a `train` and a `test` file.
        max_test (`int`, *optional*):
            Most test texts, drawn with the shares of the classes; all when not given.
        seed (`int`, *optional*, defaults to 0):
            Seed of that draw.

    Returns:
        [`Task`]: without training texts that stand in the test split.

    Raises:
        ValueError: On an unknown name, missing columns or splits, or a single class.
        OSError: When the Hub cannot be reached, or the data set is not there.
    """
    if Path(name).exists():
        task = _from_files(Path(name))
    elif name in TASKS:
        task = _from_hub(name, TASKS[name])
    else:
        raise ValueError(
            f'There is no task "{name}": it is no file or folder, and the registry has {", ".join(TASKS)} and the '
            f"groups {', '.join(GROUPS)}."
        )
    return task.without_leaks().with_tests(max_test, seed)


def _from_files(path: Path) -> Task:
    name = path.name.split(".")[0]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        rows = [(SPLIT_NAMES.get(file.name.split(".")[0].lower()), row) for file in files for row in _rows(file)]
        splits = {split: [row for own, row in rows if own == split] for split in ("train", "test")}
        if not all(splits.values()):
            raise ValueError(
                f"The folder {path} must hold a file train and a file test with one of the endings {sorted(FORMATS)}; "
                f"it holds {[file.name for file in files]}."
            )
        return _build(name, splits["train"], splits["test"], TaskSource(str(path)), None)
    given = list(_rows(path))
    if not given:
        raise ValueError(f"{path} is empty; it must hold the columns text and label.")
    if "split" not in given[0]:
        return _build(name, *_divide(given), TaskSource(str(path)), None)
    unknown = sorted({str(row["split"]) for row in given} - set(SPLIT_NAMES))
    if unknown:
        raise ValueError(f"The column split of {path} holds {unknown}; it must hold one of {sorted(SPLIT_NAMES)}.")
    train, test = ([row for row in given if SPLIT_NAMES[row["split"]] == split] for split in ("train", "test"))
    return _build(name, train, test, TaskSource(str(path)), None)


def _rows(path: Path) -> Iterable[Row]:
    """The rows of a file.

    Raises:
        ValueError: When it cannot be read.
    """
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import ArrowInvalid

    if path.stat().st_size == 0:
        return []
    try:
        return list(open_table(str(path)))
    except (DatasetGenerationError, ArrowInvalid, UnicodeDecodeError, EOFError) as err:
        raise ValueError(f"{path} cannot be read as a table: {err}") from err


def _from_hub(name: str, source: TaskSource) -> Task:
    from datasets import load_dataset

    try:
        data = load_dataset(source.path, source.config, revision=source.revision)
    except (ConnectionError, FileNotFoundError) as err:
        raise OSError(
            f'The task "{name}" is the data set {source.path} of the Hub, which cannot be loaded: {err}. Give a file '
            "or a folder instead."
        ) from err
    missing = [split for split in (source.train, source.test) if split is not None and split not in data]
    if missing:
        raise ValueError(f"{source.path} has the splits {sorted(data)}, without {missing}.")
    names = getattr(data[source.train].features.get(source.label), "names", None)
    train = list(data[source.train])
    if source.test is None:
        return _build(name, *_divide(train), source, names)
    return _build(name, train, list(data[source.test]), source, names)


def _divide(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows without splits, divided by a fixed seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    tests = round(TEST_SHARE * len(rows))
    return [rows[i] for i in order[tests:]], [rows[i] for i in order[:tests]]


def _build(
    name: str, train: Sequence[Row], test: Sequence[Row], source: TaskSource, class_names: Sequence[str] | None
) -> Task:
    """A task of rows, whose classes are in the order of the data set, else sorted."""
    labels = {split: [_label(name, row, source, class_names) for row in rows] for split, rows in _both(train, test)}
    found = {label for column in labels.values() for label in column}
    if source.positive is not None:
        order: Sequence[str] = (f"not {source.positive}", source.positive)
    elif source.threshold is not None:
        order = ("0", "1")
    else:
        order = [label for label in class_names or sorted(found, key=_natural) if label in found]
    number = {label: i for i, label in enumerate(order)}
    texts = {split: [_text(name, row, source) for row in rows] for split, rows in _both(train, test)}
    numbers = {split: [number[label] for label in column] for split, column in labels.items()}
    return Task(name, tuple(order), texts["train"], numbers["train"], texts["test"], numbers["test"])


def _both(train: Sequence[Row], test: Sequence[Row]) -> tuple[tuple[str, Sequence[Row]], ...]:
    return ("train", train), ("test", test)


def _label(name: str, row: Row, source: TaskSource, class_names: Sequence[str] | None) -> str:
    value = row.get(source.label)
    if value is None or value == "":
        raise ValueError(f"A row of {name} has no label in the column {source.label}; its columns are {sorted(row)}.")
    if source.threshold is not None:
        return "1" if float(value) >= source.threshold else "0"
    label = class_names[value] if class_names is not None and isinstance(value, int) else str(value)
    if source.positive is None:
        return label
    return label if label == source.positive else f"not {source.positive}"


def _natural(label: str) -> tuple[int, int, str]:
    """Numbers in their order, before words."""
    return (0, int(label), "") if label.lstrip("-").isdecimal() else (1, 0, label)


def _text(name: str, row: Row, source: TaskSource) -> Text:
    if source.text not in row:
        raise ValueError(f"A row of {name} has the columns {sorted(row)}, without {source.text}.")
    pair = row.get(source.text_pair or "text_pair")
    given = row[source.text] if pair is None else {"text": row[source.text], "text_pair": pair}
    return parse_text(given, f"A text of {name}")


__all__ = ["load_task"]
