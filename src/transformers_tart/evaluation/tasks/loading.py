"""Loading of tasks by name, from a file, or from a folder."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from transformers.utils import logging

from transformers_tart.evaluation.tasks.registry import GROUPS, TASKS, TaskSource
from transformers_tart.evaluation.tasks.rows import (
    SPLIT_NAMES,
    Rows,
    Splits,
    build_task,
    dataset_rows,
    read_cell,
    read_folders,
    split_of,
)
from transformers_tart.evaluation.tasks.task import Item, Task
from transformers_tart.inputs.modality import MODALITIES, TEXT, Modality
from transformers_tart.inputs.tables import FORMATS, FileTable, Row, read_rows
from transformers_tart.inputs.texts import Text, parse_text


logger = logging.get_logger(__name__)


def load_task(
    name: str,
    max_test: int | None = None,  # most test inputs, drawn with the shares of the classes; all by default
    seed: int = 0,  # of that draw
    columns: Mapping[str, str] | None = None,  # of files that have other names, as in {"text": "review"}
) -> Task:
    """Load a task, without training inputs that are in the test split too.

    `name` is one of the registry; a csv, tsv, json, jsonl or parquet file (.gz too) with the columns `text`, `label`
    and perhaps `text_pair` and `split`; or a folder with a `train` and a `test` file. A column `image` or `audio` in
    place of `text` holds paths, relative to the file, or, in parquet, what `datasets` writes. A folder may also hold
    images (png, jpg, bmp, gif, webp, tiff) or recordings (wav, flac, ogg, mp3) as `train/<label>/<file>` and
    `test/<label>/<file>`, or as `<label>/<file>`.

    A task holds images and recordings as the bytes of their files. Their labels are read first, and only the files
    that are drawn come into memory: `max_test` for tests, and at most 5,000 for support sets, by a fixed seed and with
    the shares of the classes.
    """
    if Path(name).exists():
        path = Path(name)
        source, title = TaskSource(str(path)), path.name.split(".")[0]
        data = (_read_file if path.is_file() else _read_folder)(path, columns or {})
    elif name in TASKS:
        source, title = TASKS[name], name
        data = _read_hub(name, source)
    else:
        raise ValueError(
            f'There is no task "{name}": it is no file or folder, and the registry has {", ".join(TASKS)} and the '
            f"groups {', '.join(GROUPS)}."
        )
    task = build_task(title, data, source, max_test, seed).without_leaks().with_tests(max_test, seed)
    if unseen := sorted(set(task.test_labels) - set(task.train_labels)):
        rows = sum(label in unseen for label in task.test_labels)
        logger.warning(
            f"{rows} test {task.noun} of {title} are of {len(unseen)} classes without a training row, which no method "
            "can learn; correct the labels, or add rows."
        )
    return task


def _read_file(path: Path, columns: Mapping[str, str]) -> Splits:
    data, splits = _read_table(path, columns)
    if not len(data.train):
        raise ValueError(f"{path} is empty; it must hold the columns text and label.")
    if splits is None:
        return data
    names = [str(value) for value in splits]
    if unknown := sorted(set(names) - set(SPLIT_NAMES)):
        raise ValueError(f"The column split of {path} holds {unknown}; it must hold one of {sorted(SPLIT_NAMES)}.")
    train, test = (
        data.train.select([i for i, name in enumerate(names) if SPLIT_NAMES[name] == split])
        for split in ("train", "test")
    )
    return replace(data, train=train, test=test)


def _read_folder(path: Path, columns: Mapping[str, str]) -> Splits:
    files = [file for file in sorted(path.iterdir()) if file.is_file() and split_of(file)]
    files = [file for file in files if Path(file.name.lower().removesuffix(".gz")).suffix in FORMATS]
    if not files and (media := read_folders(path)) is not None:
        return media
    tables = {file: _read_table(file, columns)[0] for file in files}
    held = {file.name: data.modality.name for file, data in tables.items()}
    if len(set(held.values())) > 1:
        raise ValueError(f"The files of {path} hold {held}; all must hold the same.")
    parts = {
        split: [data for file, data in tables.items() if split_of(file) == split and len(data.train)]
        for split in ("train", "test")
    }
    if not all(parts.values()):
        raise ValueError(
            f"The folder {path} must hold a file train and a file test with one of the endings {sorted(FORMATS)}, or "
            f"folders of images or recordings, one for each class; it holds {[own.name for own in path.iterdir()]}."
        )
    train, test = (Rows.join([data.train for data in found]) for found in parts.values())
    return replace(parts["train"][0], train=train, test=test)


def _read_renamed(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows of a table under the names that this package has for its columns."""
    for row in read_rows(str(path)):
        if absent := [column for column in columns.values() if column not in row]:
            raise ValueError(f"{path} has the columns {list(row)}, without {absent}; name others.")
        yield {**row, **{key: row[column] for key, column in columns.items()}} if columns else row


def _read_table(path: Path, columns: Mapping[str, str]) -> tuple[Splits, list[object] | None]:
    """Read all rows of a table as training rows, with the column of splits if there is one."""
    table = str(path)
    first = next(_read_renamed(path, columns), {})
    modality, source = _modality(first, path), TaskSource(table)
    if first and (absent := [name for name in (modality.name, source.label) if name not in first]):
        raise ValueError(
            f"{path} has the columns {list(first)}, without {absent}; name those that hold them: "
            "--text-column, --label-column and the like, or columns=."
        )
    labels: list[object] = []
    splits: list[object] = []
    texts: list[Item] = []
    for row in _read_renamed(path, columns):
        labels.append(row.get("label"))
        splits.append(row.get("split"))
        if modality.is_tokenized:
            texts.append(_parse_text(path.name.split(".")[0], row, source))

    def read(indices: Sequence[int]) -> list[Item]:
        wanted, found = set(indices), dict[int, Item]()
        for i, row in enumerate(_read_renamed(path, columns)):
            if i in wanted:
                found[i] = read_cell(row.get(modality.name), table, path.parent)
        return [found[i] for i in indices]

    rows = Rows.of(texts, labels) if modality.is_tokenized else Rows(labels, read)
    names = getattr((FileTable(table).features or {}).get(columns.get("label", "label")), "names", None)
    return Splits(modality, rows, class_names=names), splits if "split" in first else None


def _modality(columns: Collection[str], path: Path) -> Modality:
    """Return the modality of the column to classify."""
    found = [each for each in MODALITIES if each.name in columns]
    if not found or TEXT in found:
        return TEXT
    if len(found) > 1:
        raise ValueError(f"{path} has the columns {[each.name for each in found]}; a task has one of them.")
    return found[0]


def _read_hub(name: str, source: TaskSource) -> Splits:
    from datasets import load_dataset

    folder = {} if source.data_dir is None else {"data_dir": source.data_dir}
    try:
        data = load_dataset(source.path, source.config, revision=source.revision, **folder)
    except (ConnectionError, FileNotFoundError, RuntimeError) as err:  # a RuntimeError for loading scripts
        raise OSError(
            f'The task "{name}" is the data set {source.path} of the Hub, which cannot be loaded: {err}. Give a file '
            "or a folder instead."
        ) from err
    missing = [split for split in (source.train, source.test) if split is not None and split not in data]
    if missing:
        raise ValueError(f"{source.path} has the splits {sorted(data)}, without {missing}.")
    column = source.text if source.modality.is_tokenized else source.input or source.modality.name
    rows = {}
    for split in filter(None, (source.train, source.test)):
        own = data[split]
        absent = [needed for needed in (column, source.label) if needed not in own.column_names]
        if absent:
            raise ValueError(f"{source.path} has the columns {own.column_names}, without {absent}.")
        if source.modality.is_tokenized:
            rows[split] = Rows.of([_parse_text(name, row, source) for row in own], own[:][source.label])
        else:
            rows[split] = dataset_rows(own, column, source.label, source.modality, source.path)
    names = getattr(data[source.train].features.get(source.label), "names", None)
    return Splits(source.modality, rows[source.train], rows.get(source.test or ""), names)


def _parse_text(name: str, row: Row, source: TaskSource) -> Text:
    if source.text not in row:
        raise ValueError(f"A row of {name} has the columns {sorted(row)}, without {source.text}.")
    pair = row.get(source.text_pair or "text_pair")
    given = row[source.text] if pair is None else {"text": row[source.text], "text_pair": pair}
    return parse_text(given, f"A text of {name}")
