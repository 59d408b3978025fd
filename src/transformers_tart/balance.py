"""Balanced choices and orders of labelled rows."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def classes_in_turn(labels: Tensor) -> Tensor:
    """Indices (n,) that order labels (n,) so that every beginning is as balanced as they allow."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    turn = torch.empty_like(labels)
    turn[order] = torch.arange(len(labels)) - first[labels[order]]
    return torch.argsort(turn, stable=True)


def balanced_tails(labels: Sequence[int]) -> Iterator[list[int]]:
    """Indices of the last examples of each class, in order: first all, then one fewer of each, down to one of each."""
    per_class = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}
    for count in range(max(map(len, per_class.values())), 0, -1):
        yield sorted(i for members in per_class.values() for i in members[-count:])


def balanced_subsets(labels: Tensor, max_size: int, seed: int) -> list[Tensor]:
    """Row indices (B, size) of subsets of at most `max_size` examples, each with about the shares of the whole."""
    batch, size = labels.shape
    if size <= max_size:
        return [torch.arange(size, device=labels.device).expand(batch, -1)]
    shuffle = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    order = shuffle[torch.argsort(labels[:, shuffle], dim=1, stable=True)]
    count = -(-size // max_size)
    return [order[:, start::count].sort(dim=1).values for start in range(count)]


def seeded_orders(index: Tensor, count: int, seed: int) -> list[Tensor]:
    """Row indices (B, size) in `count` orders: the one given, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    shuffles = [torch.randperm(index.shape[1], generator=generator) for _ in range(count - 1)]
    return [index, *(index[:, shuffle.to(index.device)] for shuffle in shuffles)]


__all__ = ["balanced_subsets", "balanced_tails", "classes_in_turn", "seeded_orders"]
