"""Weights of the examples of a support set, and copies of an example, which are held out together.

A leave-one-out prediction of an example that has a copy among the others is that of its label, whatever the embeddings
are worth. Backbones round the same text differently in other batches, so copies are rows that are almost equal.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


COPY = 1e-4  # distance of copies, in units of the root mean squared norm of the support
NEAR = 1e-4  # half squared distance in float32, per squared norm, below which rows may be copies


@dataclass(frozen=True)
class Rows:
    """The weights and copies of the k examples of each of B support sets; both are `None` in most."""

    weights: Tensor | None = None  # (B, k); `None` where each is 1
    copies: Tensor | None = None  # (B, k, k), 1 for pairs of copies and on the diagonal; `None` where there are none

    def with_copies(self, support: Tensor, distances: Tensor) -> "Rows":
        """Find the copies among located examples (B, k, dim), given half their squared distances (B, k, k)."""
        norms = support.square().sum(-1)
        near = distances <= NEAR * (1 + norms[:, :, None] + norms[:, None])
        if not _is_off_diagonal(near):
            return self
        # rounding of float32 hides small distances; MPS has no float64
        wide = support if support.device.type == "mps" else support.double()
        squares = wide.square().sum(-1)
        exact = (squares[:, :, None] + squares[:, None]) / 2 - wide @ wide.transpose(1, 2)
        copies = exact <= COPY**2 / 2
        copies.diagonal(dim1=1, dim2=2).fill_(True)
        return replace(self, copies=copies.to(support.dtype)) if _is_off_diagonal(copies) else self

    def total(self, size: int) -> int | Tensor:
        """Return the number of examples, or the sum (B,) of their weights."""
        return size if self.weights is None else self.weights.sum(1)

    def total_of(self, like: Tensor) -> Tensor:
        """Return the number of examples or the sum of their weights as (B, 1), given a tensor (B, k)."""
        return (torch.ones_like(like) if self.weights is None else self.weights).sum(1, keepdim=True)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean (B, 1, ...) of the examples of x (B, k, ...)."""
        if self.weights is None:
            return x.mean(1, keepdim=True)
        return (over(self._shares(), x) * x).sum(1, keepdim=True)

    def mean_of_columns(self, x: Tensor) -> Tensor:
        """Return the mean (B, n, 1) of x (B, n, k) over the examples."""
        return x.mean(2, keepdim=True) if self.weights is None else x @ self._shares()[..., None]

    def weigh(self, x: Tensor) -> Tensor:
        """Return x (B, k, ...) times the weights."""
        return x if self.weights is None else x * over(self.weights, x)

    def mass_of_copies(self) -> Any:
        """Return the weight (B, k) of each example and its copies together, 1 where no weights and copies are."""
        if self.copies is None:
            return 1 if self.weights is None else self.weights
        return self.copies.sum(2) if self.weights is None else (self.copies @ self.weights[..., None])[..., 0]

    def sum_of_copies(self, x: Tensor) -> Tensor:
        """Return for each example the sum of x (B, k, ...) over it and its copies."""
        return x if self.copies is None else (self.copies @ x.flatten(2)).view_as(x)

    def mean_of_copies(self, x: Tensor) -> Tensor:
        """Return for each example the mean of x (B, k, ...) over it and its copies."""
        if self.copies is None:
            return x
        return self.sum_of_copies(self.weigh(x)) / over(self.mass_of_copies(), x)

    def block_sums(self, matrix: Tensor) -> Tensor:
        """Return for each example the sum (B, k) of the block of a matrix (B, k, k) of it and its copies."""
        if self.copies is None:
            return matrix.diagonal(dim1=1, dim2=2)
        return ((self.copies @ matrix) * self.copies).sum(2)

    def _shares(self) -> Tensor:
        assert self.weights is not None
        return self.weights / self.weights.sum(1, keepdim=True)


PLAIN = Rows()


def over(numbers: Tensor, values: Tensor) -> Tensor:
    """Return numbers (B, k) or (B, 1) with the dimensions of values (B, k, ...)."""
    return numbers.reshape(*numbers.shape[:2], *[1] * (values.dim() - 2))


def _is_off_diagonal(pairs: Tensor) -> bool:
    """Return whether a pair of different rows is marked in pairs (B, k, k) bool with a diagonal of marks."""
    return bool(pairs.sum() > pairs.shape[0] * pairs.shape[1])
