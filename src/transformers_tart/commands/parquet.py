"""Parquet output of `classify`: the rows of its jsonl file, beside columns of the input, written whole."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from transformers_tart.commands.output import LISTS, SCOPE, Output
from transformers_tart.files import replaced
from transformers_tart.inputs.tables import Row, file_format, open_parquet, read_rows


ROWS = 4096  # of a row group


def schema_of(path: str, names: Mapping[str, str]) -> pa.Schema:
    """Return the schema of the columns of an input, under their names in the output."""
    if not names:
        return pa.schema([])
    kind = file_format(path)
    if kind == "parquet":
        found = open_parquet(path).schema_arrow.remove_metadata()
    elif kind == "json":
        found = pa.schema([])
        try:
            for rows in _batches(read_rows(path)):
                found = pa.unify_schemas([found, pa.Table.from_pylist(rows).schema], promote_options="permissive")
        except pa.ArrowException as err:
            raise ValueError(
                f"A column of {path} holds values of several types, which parquet cannot keep ({err}); give a jsonl "
                "output, or leave out --keep-columns."
            ) from err
    else:
        found = pa.schema([(name, pa.string()) for name in names])
    return pa.schema([found.field(name).with_name(names[name]) for name in names])


def write_parquet(output: Output, kept: pa.Schema, rows: Iterator[Row]) -> None:
    """Write the parquet file of an output from its finished rows, unless it is there, and remove the file of these.

    `rows` are the values of the columns of the input that are kept, of the schema `kept`.
    """
    if output.path is None:
        return
    if not output.path.exists():
        schema = pa.schema([*_schema(output), *kept])
        together = ({**row, **own} for row, own in zip(_read(output.work), rows, strict=True))
        with replaced(output.path) as partial, ParquetWriter(partial, schema) as writer:
            for batch in _batches(together):
                writer.write_table(pa.Table.from_pylist(batch, schema))
    output.work.unlink()


def _schema(output: Output) -> pa.Schema:
    """Return the schema of predictions; labels may be strings, integers or booleans."""
    first = next((row["label"] for row in _read(output.work) if row["label"] is not None), "")
    label = pa.scalar(first).type
    types = {"row": pa.int64(), "label": label, "score": pa.float64(), "error": pa.string(), SCOPE: pa.float64()}
    types |= dict(zip(LISTS, (pa.list_(label), pa.list_(pa.float64())), strict=True))
    return pa.schema([(name, types[name]) for name in types if name in output.fields])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        yield from map(json.loads, file)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    return iter(lambda: list(itertools.islice(rows, ROWS)), [])
