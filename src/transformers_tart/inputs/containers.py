"""Inputs in the containers users have them in: tables, columns, lists and streams."""

from collections.abc import Iterator, Mapping, Sized
from typing import Any

import torch


PAIR = "text_pair"


def is_eager(inputs: Any) -> bool:
    """Return whether inputs give a list: lists, columns and arrays do, generators and torch datasets do not."""
    return isinstance(inputs, Sized) and not isinstance(inputs, (torch.utils.data.Dataset, Iterator))


def can_iterate(inputs: Any) -> bool:
    """Return whether these have items; arrays and tensors without a dimension have none."""
    return (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")) and getattr(inputs, "ndim", 1) != 0


def iterate(inputs: Any) -> Iterator[Any]:
    """Iterate, by index where a dataset has no iterator of its own."""
    if isinstance(inputs, torch.utils.data.Dataset) and not isinstance(inputs, torch.utils.data.IterableDataset):
        return (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]
    return iter(inputs)


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty: `None`, NaN, NaT or `pandas.NA`."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal
        return True
    except (ValueError, RuntimeError):  # an array has many answers
        return False


def refuse_splits(dataset: Any, what: str) -> None:
    """Raise a ValueError on a dictionary of the splits of a dataset."""
    if isinstance(getattr(dataset, "column_names", None), Mapping):
        raise ValueError(
            f"{what} are a dictionary of the dataset splits {list(dataset)}; choose one, for example "
            f"[{next(iter(dataset), 'train')!r}]."
        )


def is_dataset(table: Any) -> bool:
    """Return whether this is a `datasets.Dataset` or a stream of one."""
    return hasattr(table, "features") and hasattr(table, "column_names") and hasattr(table, "select_columns")


def dataset_columns(dataset: Any) -> list[str]:
    """Return the column names of a `datasets.Dataset`; a stream may have to be read for them."""
    return list(dataset.column_names or next(iter(dataset), {}))


def table_columns(table: Any) -> dict[str, Any] | None:
    """Return the columns of a table of pandas, polars or Arrow by name, `None` of what is no such table.

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


def as_list(column: Any, where: str) -> list[Any]:
    """Return the values of a column: a list, tuple, array, Series or iterator.

    Raises:
        TypeError: On a single value, and on what has no order or no rows.
    """
    is_one = isinstance(column, (str, bytes, bytearray)) or getattr(column, "ndim", 1) == 0
    if is_one or isinstance(column, (Mapping, set, frozenset)) or table_columns(column) is not None:
        raise TypeError(f"{where} is a single {type(column).__name__}; give a list with a value for each example.")
    if hasattr(column, "to_pylist"):  # Arrow
        return column.to_pylist()
    try:
        return list(iterate(column))
    except TypeError as err:
        raise TypeError(
            f"{where} is a single {type(column).__name__}; give a list with a value for each example."
        ) from err


def unpack(inputs: Any, key: str) -> Any:
    """Return the inputs that a table, a dataset or an Arrow array holds; anything else as it is.

    Args:
        inputs (`object`):
            What a pipeline was given.
        key (`str`):
            The column that is read: `"text"`, with `"text_pair"` where there is one, `"image"` or `"audio"`.

    Raises:
        ValueError: When there is no such column.
        TypeError: On a set, whose order is not that of its answers.
    """
    refuse_splits(inputs, "The inputs")
    if isinstance(inputs, (set, frozenset)):
        raise TypeError(f"The {key} input is a {type(inputs).__name__}, which has no order; give a list.")
    if is_dataset(inputs):
        chosen = _choose(dataset_columns(inputs), key)
        return inputs.select_columns(chosen) if chosen else []
    columns = table_columns(inputs)
    if columns is None and getattr(inputs, "ndim", 1) == 0 and isinstance(inputs.item(), str):
        return inputs.item()
    if columns is None:
        return inputs.to_pylist() if hasattr(inputs, "to_pylist") else inputs
    if not columns:
        return []
    values = {name: as_list(columns[name], f'The column "{name}"') for name in _choose(list(columns), key)}
    if PAIR not in values:
        return values[key]
    pairs = [None if is_missing(pair) else pair for pair in values[PAIR]]
    return [{key: text, PAIR: pair} for text, pair in zip(values[key], pairs, strict=True)]


def _choose(names: list[str], key: str) -> list[str]:
    """Return the columns to read; none of a stream that is empty."""
    if names and key not in names:
        raise ValueError(
            f'The inputs have the columns {names}, without "{key}"; rename the column to classify to "{key}", or give '
            "the column alone."
        )
    return [name for name in ((key, PAIR) if key == "text" else (key,)) if name in names]


__all__ = [
    "as_list",
    "can_iterate",
    "dataset_columns",
    "is_dataset",
    "is_eager",
    "is_missing",
    "iterate",
    "refuse_splits",
    "table_columns",
    "unpack",
]
