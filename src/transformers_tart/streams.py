"""Many inputs: which are answered at once and which as they are read."""

from collections.abc import Iterator, Sized
from typing import Any

import torch


def is_eager(inputs: Any) -> bool:
    """Lists, tuples, columns and arrays give a list; generators and torch datasets are read as they go."""
    return isinstance(inputs, Sized) and not isinstance(inputs, (torch.utils.data.Dataset, Iterator))


def iterate(inputs: Any) -> Iterator[Any]:
    """Iterate, by index where a dataset has no iterator of its own."""
    if isinstance(inputs, torch.utils.data.Dataset) and not isinstance(inputs, torch.utils.data.IterableDataset):
        return (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]
    return iter(inputs)


__all__ = ["is_eager", "iterate"]
