"""Loads tasks by name, from a file, or from a folder."""

from collections.abc import Sequence
from pathlib import Path

from transformers_tart.evaluation.tasks.media import build_media_task, hub_media
from transformers_tart.evaluation.tasks.media_files import find_media
from transformers_tart.evaluation.tasks.registry import GROUPS, TASKS, TaskSource
from transformers_tart.evaluation.tasks.rows import (
    Row,
    divide,
    name_label,
    order_classes,
    split_of,
    splits_of,
    stream_rows,
)
from transformers_tart.evaluation.tasks.task import Item, Task
from transformers_tart.inputs.examples import Text, parse_text
from transformers_tart.inputs.tables import FORMATS


def load_task(name: str, max_test: int | None = None, seed: int = 0) -> Task:
    r"""
    Load a task.

    Images and recordings stay encoded: of them a task holds the bytes of the files. Their labels are read first, so
    that of large data sets only the files that are drawn come into memory: `max_test` for tests, and for support sets
    5,000 at most, by a fixed seed and with the shares of the classes.

    Args:
        name (`str`):
            A name of the registry; a csv, tsv, json, jsonl or parquet file (.gz too) with the columns `text`, `label`
            and perhaps `text_pair` and `split`; or a folder with a `train` and a `test` file. A column `image` or
            `audio` instead of `text` holds paths, relative to the file, or, of parquet, what `datasets` writes. A
            folder may also hold images (png, jpg, bmp, gif, webp, tiff) or recordings (wav, flac, ogg, mp3) as
            `train/<label>/<file>` and `test/<label>/<file>`, or as `<label>/<file>`.
        max_test (`int`, *optional*):
            Most test texts, drawn with the shares of the classes; all when not given.
        seed (`int`, *optional*, defaults to 0):
            Seed of that draw.

    Returns:
        [`Task`]: without training texts that stand in the test split.

    Raises:
        ValueError: On an unknown name, missing columns, splits or files, or a single class.
        OSError: When the Hub cannot be reached, or the data set is not there.
    """
    if Path(name).exists():
        task = _from_files(Path(name), max_test, seed)
    elif name in TASKS:
        task = _from_hub(name, TASKS[name], max_test, seed)
    else:
        raise ValueError(
            f'There is no task "{name}": it is no file or folder, and the registry has {", ".join(TASKS)} and the '
            f"groups {', '.join(GROUPS)}."
        )
    return task.without_leaks().with_tests(max_test, seed)


def _from_files(path: Path, max_test: int | None, seed: int) -> Task:
    name, source = path.name.split(".")[0], TaskSource(str(path))
    media = find_media(path)
    if media is not None:
        return build_media_task(name, media, source, max_test, seed)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        rows = [(split_of(file), row) for file in files for row in stream_rows(file)]
        splits = {split: [row for own, row in rows if own == split] for split in ("train", "test")}
        if not all(splits.values()):
            raise ValueError(
                f"The folder {path} must hold a file train and a file test with one of the endings {sorted(FORMATS)}, "
                f"or folders of images or recordings, one for each class; it holds {[file.name for file in files]}."
            )
        return _build(name, splits["train"], splits["test"], source, None)
    given = list(stream_rows(path))
    if not given:
        raise ValueError(f"{path} is empty; it must hold the columns text and label.")
    places = splits_of([row["split"] for row in given], path) if "split" in given[0] else divide(len(given))
    train, test = ([given[i] for i in chosen] for chosen in places)
    return _build(name, train, test, source, None)


def _from_hub(name: str, source: TaskSource, max_test: int | None, seed: int) -> Task:
    from datasets import load_dataset

    folder = {} if source.data_dir is None else {"data_dir": source.data_dir}
    try:
        data = load_dataset(source.path, source.config, revision=source.revision, **folder)
    except (ConnectionError, FileNotFoundError, RuntimeError) as err:  # a RuntimeError: it is a script
        raise OSError(
            f'The task "{name}" is the data set {source.path} of the Hub, which cannot be loaded: {err}. Give a file '
            "or a folder instead."
        ) from err
    missing = [split for split in (source.train, source.test) if split is not None and split not in data]
    if missing:
        raise ValueError(f"{source.path} has the splits {sorted(data)}, without {missing}.")
    names = getattr(data[source.train].features.get(source.label), "names", None)
    if source.modality != "text":
        return build_media_task(name, hub_media(data, source, names), source, max_test, seed)
    train = list(data[source.train])
    if source.test is None:
        train, test = ([train[i] for i in chosen] for chosen in divide(len(train)))
        return _build(name, train, test, source, names)
    return _build(name, train, list(data[source.test]), source, names)


def _build(
    name: str, train: Sequence[Row], test: Sequence[Row], source: TaskSource, class_names: Sequence[str] | None
) -> Task:
    """A task of rows of texts."""
    labels = [[_label(name, row, source, class_names) for row in rows] for rows in (train, test)]
    order = order_classes({label for column in labels for label in column}, source, class_names)
    number = {label: i for i, label in enumerate(order)}
    texts: list[list[Item]] = [[_text(name, row, source) for row in rows] for rows in (train, test)]
    numbers = [[number[label] for label in column] for column in labels]
    return Task(name, order, texts[0], numbers[0], texts[1], numbers[1])


def _label(name: str, row: Row, source: TaskSource, class_names: Sequence[str] | None) -> str:
    if source.label not in row:
        raise ValueError(f"A row of {name} has no label in the column {source.label}; its columns are {sorted(row)}.")
    return name_label(name, row[source.label], source, class_names)


def _text(name: str, row: Row, source: TaskSource) -> Text:
    if source.text not in row:
        raise ValueError(f"A row of {name} has the columns {sorted(row)}, without {source.text}.")
    pair = row.get(source.text_pair or "text_pair")
    given = row[source.text] if pair is None else {"text": row[source.text], "text_pair": pair}
    return parse_text(given, f"A text of {name}")


__all__ = ["load_task"]
