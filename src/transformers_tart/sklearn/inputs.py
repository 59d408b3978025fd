"""Inputs of an estimator: texts, images or audio in a list, an array, a column or a table of one column."""

from typing import Any

import numpy as np

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.containers import can_iterate, table_columns


def as_inputs(X: Any) -> list[Any]:
    """Return inputs as a list.

    Raises:
        TypeError: On a single text, or what has no items.
        ValueError: On a table of several columns, or no inputs.
    """
    columns = table_columns(X)
    if columns is not None:
        if len(columns) != 1:
            first = next(iter(columns), "text")
            raise ValueError(f"X has the columns {shorten(list(columns))}; give one, such as X[{first!r}].")
        X = next(iter(columns.values()))
    if isinstance(X, (str, bytes, dict)) or not can_iterate(X):
        raise TypeError(f"X is {type(X).__name__}; give a list, an array or a column of inputs.")
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == 1 and X.dtype.kind in "OUT":
        X = X[:, 0]
    inputs = X.tolist() if isinstance(X, np.ndarray) and X.ndim == 1 else list(X)
    if not inputs:
        raise ValueError("X has no inputs; give at least one.")
    return inputs
