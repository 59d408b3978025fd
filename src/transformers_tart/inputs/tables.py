"""Tables in files, read row by row; errors name the file and the line, and follow the rows before it."""

import contextlib
import csv
import gzip
import itertools
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers_tart.checks.arguments import well_formed


if TYPE_CHECKING:
    from datasets import Features

Row: TypeAlias = dict[str, Any]

FORMATS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
PARQUET_ROWS = 256  # in memory at a time
LONGEST_CELL = min(sys.maxsize, 2**31 - 1)  # the csv module refuses cells of more than 128 KiB otherwise


def file_format(path: str) -> str:
    """Return the format of a table by its ending, with or without .gz.

    Raises:
        ValueError: On another ending, on a folder, and when the file does not exist.
    """
    if Path(path).is_dir():
        raise ValueError(
            f"{path} is a folder. Give a table ({', '.join(sorted(FORMATS))}); of files in a folder, one with a "
            "column of their paths, image or audio."
        )
    name = FORMATS.get(_ending(path))
    if name is None:
        raise ValueError(f"{path} has the ending {Path(path).suffix!r}; it must be one of {sorted(FORMATS)}.")
    if not Path(path).is_file():
        raise ValueError(f"There is no file {path}.")
    return name


def is_table_path(path: str | os.PathLike) -> bool:
    """Return whether a path has the ending of a table."""
    return _ending(os.fspath(path)) in FORMATS


def _ending(path: str) -> str:
    return Path(path.lower().removesuffix(".gz")).suffix


def beside(path: str, value: Any) -> Any:
    """Resolve a path relative to the folder of a table; addresses and other values stay."""
    if not isinstance(value, str) or "://" in value or value.startswith("data:"):
        return value
    return str(Path(path).parent / value)


def read_rows(path: str) -> Iterator[Row]:
    """Yield the rows of a table, each a dict of its columns; cells of csv files are strings, unchanged.

    Lone surrogates, which JSON can contain and UTF-8 cannot, are replaced by U+FFFD.

    Args:
        path (`str`):
            A csv, tsv, json, jsonl, parquet or txt file, with or without .gz. An empty file has no rows.

    Raises:
        ValueError: When the file is damaged; the message names the line, counted from 1. The rows before it are
            yielded first.
    """
    reader = READERS[file_format(path)]
    if Path(path).stat().st_size == 0:
        return
    with _naming(path):
        yield from reader(path)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Raise a ValueError that names the file where a block finds damaged gzip."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise ValueError(f"{path} is damaged: {err}.") from err


def read_columns(path: str, rows: int = 1000) -> list[str] | None:
    """Return the columns of a table: of its header or schema, for JSON of its first rows.

    Returns:
        `list[str]`: or `None`, when the file has neither a header nor rows.
    """
    kind = file_format(path)
    if Path(path).stat().st_size == 0:
        return None
    if kind == "parquet":
        return open_parquet(path).schema_arrow.names
    if kind == "csv":
        with _naming(path):
            return _read_header(path, _csv_rows(path)) or None
    found: dict[str, None] = {}
    try:
        for row in itertools.islice(read_rows(path), rows):
            found.update(dict.fromkeys(row))
    except ValueError:  # damage after the first row is an error of the rows, not of the columns
        if not found:
            raise
    return list(found) or None


@dataclass(frozen=True)
class FileTable:
    """The table of a file, which is read anew by each iterator.

    Attributes:
        path: path of the file.
    """

    path: str

    @cached_property
    def columns(self) -> list[str] | None:
        """Columns of the table; see [`read_columns`]."""
        return read_columns(self.path)

    @property
    def features(self) -> "Features | None":
        """Features of a parquet file, with the names of classes."""
        from datasets import Features

        if file_format(self.path) != "parquet" or not self.columns:
            return None
        return Features.from_arrow_schema(open_parquet(self.path).schema_arrow)

    def select_columns(self, column_names: list[str]) -> Iterator[Row]:
        """Yield the rows with these columns, as far as they have them."""
        return ({name: row[name] for name in column_names if name in row} for row in self)

    def __iter__(self) -> Iterator[Row]:
        return read_rows(self.path)


def _read_lines(path: str) -> Iterator[str]:
    opened: Any = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            if well_formed(line) != line:  # surrogates stand for bytes that are not UTF-8
                raise ValueError(f"Line {number} of {path} is not UTF-8; convert the file to UTF-8.")
            yield line


def _separator(path: str) -> str:
    """Return the separator: a tab in tsv files, else a semicolon where the first line has one and no comma."""
    if _ending(path) == ".tsv":
        return "\t"
    header = next(_read_lines(path), "")
    return ";" if ";" in header and "," not in header else ","


def _csv_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, after the number of its first line."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(_read_lines(path), delimiter=_separator(path), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as err:
            raise ValueError(f"The row that begins in line {start} of {path} is not csv: {err}.") from err
        if cells is None:
            return
        if cells:
            yield start, cells


def _read_header(path: str, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    line, header = next(rows, (1, []))
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        raise ValueError(f"Line {line} of {path} names the columns {repeated} more than once; rename one of each.")
    return header


def _read_csv(path: str) -> Iterator[Row]:
    rows = _csv_rows(path)
    header = _read_header(path, rows)
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(
                f"Line {line} of {path} has {len(cells)} cells, but the header has {len(header)}; put cells that "
                f"hold the separator {_separator(path)!r} into double quotes."
            )
        yield dict(zip(header, cells, strict=True))


def _read_json(path: str) -> Iterator[Row]:
    lines = _read_lines(path)
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("["):  # an array instead of lines
            array = _parse_json(path, line + "".join(lines), number)
            yield from (_as_row(item, f"Item {i} of the array in {path}") for i, item in enumerate(array))
        elif line.strip():
            yield _as_row(_parse_json(path, line, number), f"Line {number} of {path}")


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {type(value).__name__} in JSON; it must be an object.")
    return {name: well_formed(cell) if isinstance(cell, str) else cell for name, cell in value.items()}


def _parse_json(path: str, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        line = first_line + text.rstrip().count("\n", 0, err.pos)  # the last one of truncated JSON
        raise ValueError(f"Line {line} of {path} is not JSON: {err.msg}.") from err
    except (ValueError, RecursionError) as err:  # an integer of thousands of digits, or thousands of brackets
        raise ValueError(f"Line {first_line} of {path} cannot be read as JSON: {err}.") from err


def open_parquet(path: str) -> Any:
    """Open a parquet file, with or without .gz, as a `ParquetFile` of pyarrow.

    Raises:
        ValueError: When it cannot be read.
    """
    from pyarrow import ArrowException, BufferReader
    from pyarrow.parquet import ParquetFile

    try:
        is_packed = path.lower().endswith(".gz")
        with _naming(path):
            return ParquetFile(BufferReader(gzip.decompress(Path(path).read_bytes())) if is_packed else path)
    except ArrowException as err:
        raise ValueError(f"{path} cannot be read as a parquet file: {err}") from err


def _read_parquet(path: str) -> Iterator[Row]:
    from pyarrow import ArrowException

    count = 0
    with open_parquet(path) as table:
        try:
            for batch in table.iter_batches(PARQUET_ROWS):
                yield from batch.to_pylist()
                count += batch.num_rows
        except (ArrowException, UnicodeDecodeError, OSError) as err:
            raise ValueError(
                f"Rows {count} to {count + PARQUET_ROWS} (from 0) of {path} cannot be read as parquet: {err}"
            ) from err


def _read_text(path: str) -> Iterator[Row]:
    return ({"text": line.removesuffix("\n").removesuffix("\r")} for line in _read_lines(path))


READERS: dict[str, Callable[[str], Iterator[Row]]] = {
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
    "text": _read_text,
}
