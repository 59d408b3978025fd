"""Tables of inputs and examples on the command line: their columns, stdin, and what is kept of a row."""

import argparse
import contextlib
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers_tart.checks.progress import show_progress
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.inputs.columns import LABEL, SUFFIX, Columns, TableOptions
from transformers_tart.inputs.containers import choose_columns, columns_of, columns_of_examples
from transformers_tart.inputs.modality import MODALITIES, Modality
from transformers_tart.inputs.tables import FileTable, Row, beside, file_format, open_parquet, read_rows


KEYS = (*dict.fromkeys(column for modality in reversed(MODALITIES) for column in modality.columns), LABEL)
COLUMN_OPTIONS = tuple(f"{key}{SUFFIX}" for key in KEYS)
STDIN = "-"
STDIN_FORMATS = ("txt", "jsonl", "csv", "tsv")


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the columns of tables to the parser of a command."""
    for key, name in zip(KEYS, COLUMN_OPTIONS, strict=True):
        of = "example" if key == LABEL else "example and input"
        help_text = f"column with the {key.replace('_', ' ')} of each {of} (default: {key})"
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="COLUMN", help=help_text)


def column_arguments(args: argparse.Namespace) -> dict[str, str]:
    """Return the options that name columns as arguments of the pipeline, as far as they are given."""
    return {name: getattr(args, name) for name in COLUMN_OPTIONS if getattr(args, name) is not None}


def named_columns(args: argparse.Namespace) -> dict[str, str]:
    """Return the options that name columns by the keys that these stand for."""
    return {name.removesuffix(SUFFIX): column for name, column in column_arguments(args).items()}


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class InputTable:
    """A table of inputs."""

    path: str
    modality: Modality
    columns: Columns
    folder: Path  # at which relative paths in the table begin

    @classmethod
    def of(cls, args: argparse.Namespace, path: str, modality: Modality, folder: Path | None = None) -> "InputTable":
        """Return the table of a path, and check that it has the columns."""
        options = TableOptions.of(column_arguments(args), modality.columns)
        if file_format(path) == "text":  # whose lines may be paths
            options = TableOptions({modality.name: "text"})
        found = cls(path, modality, columns_of(modality, options), folder or Path(path).parent)
        choose_columns(FileTable(path), found.columns, f"{path} has the columns")
        return found

    def inputs(self, skip: int = 0) -> Iterator[tuple[Any, Row]]:
        """Yield each input, or `Unreadable` with an error, and its row; damage is raised after the rows before it."""
        for number, row in enumerate(islice(read_rows(self.path), skip, None), start=skip):
            try:
                yield self._input_of(row, f"Row {number}"), row
            except (ValueError, TypeError) as err:
                yield Unreadable(err), row

    def _input_of(self, row: Row, where: str) -> Any:
        given = {key: row.get(name) for key, name in self.columns.names.items() if row.get(name) is not None}
        if self.modality.name not in given:
            raise ValueError(f"{where} has no {self.modality}.")
        if self.modality.suffixes:
            return beside(str(self.folder / "table"), given[self.modality.name])
        self.modality.parse(given, where)
        return given if len(given) > 1 else given[self.modality.name]

    def survey(self) -> tuple[int, list[str]]:
        """Count the rows, and list their columns, up to damage, which is reported at once and raised later."""
        if file_format(self.path) == "parquet" and (columns := FileTable(self.path).columns) is not None:
            return open_parquet(self.path).metadata.num_rows, columns
        count, found = 0, dict[str, None]()
        try:
            for row in show_progress(read_rows(self.path), "counting", "row"):
                found.update(dict.fromkeys(row))
                count += 1
        except ValueError as err:
            rest = f"The {count:,} rows before are classified first; mended, the file is another input."
            print(f"classify: {err} {rest}", file=sys.stderr)
        return count, list(found or FileTable(self.path).columns or ())


def check_examples(args: argparse.Namespace, modality: Modality) -> None:
    """Check that the file of examples has the columns."""
    columns = columns_of_examples(modality, TableOptions.of(column_arguments(args), modality.columns))
    table = FileTable(args.examples)
    file_format(table.path)
    if table.columns is None:
        needed = " and ".join(columns.names[key] for key in columns.needed)
        raise ValueError(f"{table.path} is empty; it must hold the columns {needed}.")
    choose_columns(table, columns, f"{table.path} has the columns")


def check_rows(path: str) -> None:
    """Read a file of examples, which finds damage before a model is loaded."""
    if not sum(1 for _ in show_progress(read_rows(path), "checking", "row")):
        raise ValueError(f"{path} holds no examples below its header; give a file with some.")


def names_of_kept(columns: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Return the name in the output of each column of the input: its own, or `input_<name>` where that is taken."""
    names = {name: f"input_{name}" if name in taken else name for name in columns}
    if len(set(names.values())) < len(names):
        twice = [name for name in taken if f"input_{name}" in columns]
        raise ValueError(f"The columns {twice} of the input and input_{twice[0]} are one in the output; rename them.")
    return names


def check_keepable(path: str) -> None:
    """Check that jsonl and csv can hold the columns of a table."""
    if file_format(path) == "parquet" and Path(path).stat().st_size:
        schema = open_parquet(path).schema_arrow
        if binary := [field.name for field in schema if "binary" in str(field.type)]:
            raise ValueError(
                f"The columns {binary} of {path} hold bytes, which jsonl and csv cannot keep; give a parquet file as "
                "--output, or leave out --keep-columns."
            )


def as_json(value: Any) -> Any:
    """Return a value of a row, or what stands for it in JSON."""
    if isinstance(value, dict):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[str, Path | None]]:
    """Yield the path of the input, a copy for stdin, and the folder of its relative paths where that is another."""
    if args.input != STDIN:
        yield args.input, None
        return
    with tempfile.TemporaryDirectory(prefix="tart-") as folder:
        path = Path(folder, f"stdin.{args.input_format or STDIN_FORMATS[0]}")
        with open(path, "wb+") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
            if args.input_format is None and _is_json_object(file.readline()):
                raise ValueError(
                    "The first line of stdin is a JSON object; give --input-format jsonl, or txt for texts."
                )
        try:
            yield str(path), Path.cwd()
        except ValueError as err:  # the copy is nowhere afterwards
            if str(path) not in str(err):
                raise
            raise ValueError(str(err).replace(str(path), "stdin")) from err
