"""Tensors with a row for each class, spread over more classes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def spread(rows: Tensor, places: Sequence[int], size: int, others: Tensor | None = None) -> Tensor:
    """Return a tensor with a row for each of `size` classes.

    Args:
        rows (`torch.FloatTensor` of shape `(c, ...)`):
            Rows of known classes.
        places (`list[int]`), size (`int`):
            The numbers of these classes among all.
        others (`torch.FloatTensor` of shape `(size, ...)`, *optional*):
            Rows of which those of the other classes are taken; these are NaN when not given.
    """
    found = rows.new_full((size, *rows.shape[1:]), torch.nan) if others is None else others.to(rows, copy=True)
    found[list(places)] = rows
    return found


__all__ = ["spread"]
