"""Containers of inputs: tables, columns, lists and streams."""

import os
from collections.abc import Iterator, Mapping, Sized
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch

from transformers_tart.inputs.columns import LABEL, LIKELY_LABELS, Columns, TableOptions
from transformers_tart.inputs.tables import FileTable, beside, file_format, is_table_path


PAIR = "text_pair"


class Inputs(Protocol):
    """The part of a `Modality` that containers need."""

    suffixes: tuple[str, ...]
    likely_columns: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that hold an input, the required one first."""

    def is_one(self, inputs: Any) -> bool:
        """Return whether a value is a single input rather than many."""


def is_eager(inputs: Any) -> bool:
    """Return whether inputs give a list: lists, columns and arrays do, generators and torch datasets do not."""
    return isinstance(inputs, Sized) and not isinstance(inputs, (torch.utils.data.Dataset, Iterator))


def can_iterate(inputs: Any) -> bool:
    """Return whether an object has items; arrays and tensors without a dimension have none."""
    return (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")) and getattr(inputs, "ndim", 1) != 0


def iterate(inputs: Any) -> Iterator[Any]:
    """Iterate, by index where a dataset has no iterator of its own."""
    if isinstance(inputs, torch.utils.data.Dataset) and not isinstance(inputs, torch.utils.data.IterableDataset):
        return (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]
    return iter(inputs)


def is_missing(value: Any) -> bool:
    """Return whether a value of a table is empty: `None`, NaN, NaT or `pandas.NA`."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal
        return True
    except (ValueError, RuntimeError):  # arrays compare by element
        return False


def resolve_table(table: Any, subject: str, split: str | None = None, default: str | None = None) -> Any:
    """Return the table of a path, or a split of a dictionary of datasets; anything else as it is.

    Args:
        table (`object`):
            A table, or anything else; of strings and paths, only those with the ending of a table are one.
        subject (`str`):
            Beginning of messages, such as `"The examples"`.
        split (`str`, *optional*), default (`str`, *optional*):
            Split to choose, and the one to choose where none is given.

    Raises:
        ValueError: On a path at which there is no table, and when there is no such split, or no split to choose.
    """
    if isinstance(table, (str, os.PathLike)) and is_table_path(table):
        table = FileTable(os.fspath(table))
    splits = list(table) if isinstance(getattr(table, "column_names", None), Mapping) else None
    if splits is None:
        if split is not None:
            raise ValueError(f'split is "{split}", but {subject.lower()} have no splits; leave it out.')
        return table
    chosen = default if split is None and default in splits else split
    if chosen not in splits:
        absent = "" if chosen is None else f", without {chosen!r}"
        raise ValueError(
            f"{subject} are a dictionary of the dataset splits {splits}{absent}; choose one, for example "
            f'split="{next(iter(splits), "train")}".'
        )
    return table[chosen]


def is_dataset(table: Any) -> bool:
    """Return whether an object is a `datasets.Dataset` or a stream of one."""
    return hasattr(table, "features") and hasattr(table, "column_names") and hasattr(table, "select_columns")


def table_columns(table: Any) -> dict[str, Any] | None:
    """Return the columns of a pandas, polars or Arrow table by name, `None` for anything else.

    Raises:
        ValueError: When two columns have one name.
        TypeError: On a table that is not in memory.
    """
    if hasattr(table, "to_pydict") and hasattr(table, "column"):  # Arrow
        names, column = list(table.column_names), table.column
    elif hasattr(table, "columns") and hasattr(table, "dtypes"):
        if hasattr(table, "collect"):
            raise TypeError(f"A {type(table).__name__} holds no rows yet; give its result: .collect().")
        names, column = list(table.columns), table.__getitem__
    else:
        return None
    if len({str(name) for name in names}) < len(names):
        raise ValueError(f"Several columns of the table have one name, of {sorted(map(str, names))}; rename them.")
    return {str(name): column(name) for name in names}


def choose_columns(table: Any, columns: Columns, subject: str) -> dict[str, str] | None:
    """Return the columns to read of a table of any kind by key, `None` for anything else."""
    if is_dataset(table):
        # a stream may have to be read for its columns
        return columns.choose(table.column_names or list(next(iter(table), {})), subject, partial(_first_row, table))
    found = table if isinstance(table, Mapping) else table_columns(table)
    if isinstance(table, FileTable):
        return columns.choose(table.columns or (), subject, partial(next, iter(table), {}))
    if found is None:
        return None
    names = [str(name) for name in found]
    return columns.choose(names, subject, lambda: {name: _first(found[name]) for name in names if name in found})


def _first_row(dataset: Any) -> dict[str, Any]:
    """Return a row of a dataset, of the kinds of its columns: strings and others, without decoding a file."""
    if dataset.features is None:
        return next(iter(dataset), {})
    return {name: "" for name, kind in dataset.features.items() if getattr(kind, "dtype", None) == "string"}


def _first(column: Any) -> Any:
    """Return the first value of a column, `None` of an empty one."""
    value: Any = next(iter(column), None) if can_iterate(column) and not isinstance(column, str) else None
    return value.as_py() if hasattr(value, "as_py") else value  # of Arrow


def read_chosen(table: Any, chosen: Mapping[str, str], where: str = "") -> dict[str, list[Any]]:
    """Return the values of the chosen columns of a table by key."""
    if is_dataset(table) or isinstance(table, FileTable):
        rows = list(table.select_columns(list(chosen.values()))) if chosen else []
        return {key: [row.get(name) for row in rows] for key, name in chosen.items()}
    found = table if isinstance(table, Mapping) else table_columns(table) or {}
    return {key: as_list(found[name], f'The column "{name}"{where}') for key, name in chosen.items()}


def as_list(column: Any, where: str) -> list[Any]:
    """Return the values of a column: a list, tuple, array, Series or iterator.

    Raises:
        TypeError: On a single value, and on a container without order or rows.
    """
    error = TypeError(f"{where} is a single {type(column).__name__}; give a list with a value for each row.")
    is_one = isinstance(column, (str, bytes, bytearray)) or getattr(column, "ndim", 1) == 0
    if is_one or isinstance(column, (Mapping, set, frozenset)) or table_columns(column) is not None:
        raise error
    if hasattr(column, "to_pylist"):  # Arrow
        return column.to_pylist()
    try:
        return list(iterate(column))
    except TypeError as err:
        raise error from err


def unpack(inputs: Any, modality: Inputs, options: TableOptions | None = None) -> Any:
    """Return the inputs inside a table, a dataset or an Arrow array; anything else as it is.

    Args:
        inputs (`object`):
            The argument of a pipeline call.
        modality (`Modality`):
            Its columns are read; the first is required, of texts `"text_pair"` may follow.
        options ([`TableOptions`], *optional*):
            Names of these columns, and the split of a dictionary of datasets.

    Raises:
        ValueError: When there is no such column or split.
        TypeError: On a set, which has no order.
    """
    options = options or TableOptions()
    key, columns = modality.columns[0], columns_of(modality, options)
    if isinstance(inputs, (set, frozenset)):
        raise TypeError(f"The {key} input is a {type(inputs).__name__}, which has no order; give a list.")
    is_text = isinstance(inputs, str)  # and no path
    if is_text and is_table_path(inputs) and os.path.isfile(inputs):
        raise ValueError(f"The {key} input is the name of a table; give it as Path(...) for its rows, else in a list.")
    table = resolve_table([] if is_text else inputs, "The inputs", options.split)
    if is_text or (isinstance(table, Mapping) and not _holds_columns(table, modality, columns.names[key])):
        return inputs
    if isinstance(table, FileTable) and file_format(table.path) == "text":  # whose lines may be paths
        columns = replace(columns, given={key: "text"})
    chosen = choose_columns(table, columns, "The inputs have the columns")
    if chosen is None:
        return _unpack_array(table)
    if is_dataset(table):
        renamed = {name: key for key, name in chosen.items() if name != key}
        if not chosen:
            return []
        table = table.select_columns(list(chosen.values()))
        return table.rename_columns(renamed) if renamed else table
    values = read_chosen(table, chosen)
    if isinstance(table, FileTable) and modality.suffixes:
        values = {name: [beside(table.path, value) for value in column] for name, column in values.items()}
    if PAIR not in values:
        return values.get(key, [])
    pairs = [None if is_missing(pair) else pair for pair in values[PAIR]]
    return [{key: text, PAIR: pair} for text, pair in zip(values[key], pairs, strict=True)]


def _unpack_array(inputs: Any) -> Any:
    if getattr(inputs, "ndim", 1) == 0 and isinstance(inputs.item(), str):
        return inputs.item()
    return inputs.to_pylist() if hasattr(inputs, "to_pylist") else inputs


def _holds_columns(row: Mapping, modality: Inputs, name: str) -> bool:
    """Return whether a mapping is a table of columns rather than one input."""
    value = row.get(name)
    is_one = value is None or isinstance(value, (str, bytes, bytearray, Mapping)) or not can_iterate(value)
    return not is_one and not modality.is_one(value)


def columns_of(modality: Inputs, options: TableOptions) -> Columns:
    """Return the columns of inputs."""
    given = {key: name for key, name in options.columns.items() if key in modality.columns}
    key = modality.columns[0]
    return Columns(modality.columns, (key,), given, {key: modality.likely_columns})


def columns_of_examples(modality: Inputs, options: TableOptions) -> Columns:
    """Return the columns of examples: those of inputs, and the label."""
    key = modality.columns[0]
    likely = {key: modality.likely_columns, LABEL: LIKELY_LABELS}
    return Columns((*modality.columns, LABEL), (key, LABEL), options.columns, likely)


def pick(item: Any, modality: Inputs, columns: Columns, where: str) -> Any:
    """Return the input in a row: of a text or pair with its usual keys, of other inputs the value alone.

    Values that are no rows stay as they are; among them are mappings such as `{"array", "sampling_rate"}`.
    """
    if not isinstance(item, Mapping):
        return item
    key, name = modality.columns[0], columns.names[modality.columns[0]]
    if modality.suffixes and name not in item and key not in item:  # a value of `datasets`
        return item
    chosen = columns.choose([str(each) for each in item], f"{where} has the keys", lambda: item)
    if modality.suffixes:
        return item[name]
    return {key: item[name] for key, name in chosen.items()}
