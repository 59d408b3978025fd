"""Tables in files, read through `datasets` as streams."""

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from datasets import IterableDataset

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}


def file_format(path: str) -> str:
    """The format of a table by its ending, to which .gz may be added.

    Raises:
        ValueError: On another ending, and when the file does not exist.
    """
    name = FORMATS.get(_ending(path))
    if name is None:
        raise ValueError(f"{path} has the ending {Path(path).suffix!r}; it must be one of {sorted(FORMATS)}.")
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}.")
    return name


def _ending(path: str) -> str:
    return Path(path.lower().removesuffix(".gz")).suffix


def _reading_options(path: str) -> dict[str, Any]:
    if file_format(path) != "csv":
        return {}
    from datasets import Features, Value

    separator = "\t" if _ending(path) == ".tsv" else ","
    opened = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        columns = next(csv.reader(file, delimiter=separator), [])
    # every cell as it is written: a text that looks like a number or like "NA" stays a text
    features = Features({column: Value("string") for column in columns})
    return {"features": features, "keep_default_na": False, "sep": separator, "encoding": "utf-8-sig"}


def open_table(path: str) -> "IterableDataset":
    """A file as a stream: `datasets` would otherwise leave a copy of the user's texts in its cache."""
    from datasets import load_dataset

    options = _reading_options(path)
    return load_dataset(file_format(path), data_files=path, split="train", streaming=True, **options)


__all__ = ["FORMATS", "file_format", "open_table"]
