"""Containers of inputs: tables, columns, lists and streams."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Protocol

import torch


PAIR = "text_pair"


class Columns(Protocol):
    """The part of a `Modality` that containers need."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that hold an input, the required one first."""


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


def is_dataset(table: Any, subject: str) -> bool:
    """Return whether an object is a `datasets.Dataset` or a stream of one.

    Raises:
        ValueError: On a dictionary of the splits of a dataset; the message begins with `subject`.
    """
    if isinstance(getattr(table, "column_names", None), Mapping):
        raise ValueError(
            f"{subject} are a dictionary of the dataset splits {list(table)}; choose one, for example "
            f"[{next(iter(table), 'train')!r}]."
        )
    return hasattr(table, "features") and hasattr(table, "column_names") and hasattr(table, "select_columns")


def dataset_columns(dataset: Any) -> list[str]:
    """Return the column names of a `datasets.Dataset`; a stream may have to be read for them."""
    return list(dataset.column_names or next(iter(dataset), {}))


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


def choose_columns(given: Sequence[str], keys: Sequence[str], needed: Sequence[str], subject: str) -> list[str]:
    """Return the columns of `keys` that a table has; a table without any column is empty.

    Raises:
        ValueError: When the table has columns, but not all that are needed; the message begins with `subject`.
    """
    missing = [name for name in needed if name not in given]
    if given and missing:
        raise ValueError(f"{subject} have the columns {list(given)}, without {missing}; rename the columns.")
    return [name for name in keys if name in given]


def as_list(column: Any, where: str) -> list[Any]:
    """Return the values of a column: a list, tuple, array, Series or iterator.

    Raises:
        TypeError: On a single value, and on a container without order or rows.
    """
    error = TypeError(f"{where} is a single {type(column).__name__}; give a list with a value for each example.")
    is_one = isinstance(column, (str, bytes, bytearray)) or getattr(column, "ndim", 1) == 0
    if is_one or isinstance(column, (Mapping, set, frozenset)) or table_columns(column) is not None:
        raise error
    if hasattr(column, "to_pylist"):  # Arrow
        return column.to_pylist()
    try:
        return list(iterate(column))
    except TypeError as err:
        raise error from err


def unpack(inputs: Any, modality: Columns) -> Any:
    """Return the inputs inside a table, a dataset or an Arrow array; anything else as it is.

    Args:
        inputs (`object`):
            The argument of a pipeline call.
        modality (`Modality`):
            Its columns are read; the first is required, of texts `"text_pair"` may follow.

    Raises:
        ValueError: When there is no such column.
        TypeError: On a set, which has no order.
    """
    keys, key = modality.columns, modality.columns[0]
    if isinstance(inputs, (set, frozenset)):
        raise TypeError(f"The {key} input is a {type(inputs).__name__}, which has no order; give a list.")
    if is_dataset(inputs, "The inputs"):
        chosen = choose_columns(dataset_columns(inputs), keys, (key,), "The inputs")
        return inputs.select_columns(chosen) if chosen else []
    columns = table_columns(inputs)
    if columns is None and getattr(inputs, "ndim", 1) == 0 and isinstance(inputs.item(), str):
        return inputs.item()
    if columns is None:
        return inputs.to_pylist() if hasattr(inputs, "to_pylist") else inputs
    chosen = choose_columns(list(columns), keys, (key,), "The inputs")
    values = {name: as_list(columns[name], f'The column "{name}"') for name in chosen}
    if PAIR not in values:
        return values.get(key, [])
    pairs = [None if is_missing(pair) else pair for pair in values[PAIR]]
    return [{key: text, PAIR: pair} for text, pair in zip(values[key], pairs, strict=True)]
