"""Balanced subsets and orders of labeled rows."""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


CHUNK = 256  # rows that are in memory in float64 at a time
FIXED_POINT = 2.0**40  # sums of integers do not depend on the order of the terms; sums of floats do


def classes_in_turn(labels: Tensor) -> Tensor:
    """Return indices (n,) that order labels (n,) so that every prefix is as balanced as possible."""
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    turn = torch.empty_like(labels)
    turn[order] = torch.arange(len(labels)) - first[labels[order]]
    return torch.argsort(turn, stable=True)


def balanced_tails(labels: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices of the last examples of each class, in order: all, then one fewer of each, down to one of each."""
    per_class = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}
    for count in range(max(map(len, per_class.values())), 0, -1):
        yield sorted(i for members in per_class.values() for i in members[-count:])


def balanced_subsets(embeddings: Tensor, labels: Tensor, max_size: int) -> list[Tensor]:
    """Split support sets into subsets of at most `max_size` examples with about the class shares of the whole.

    The examples of each class are ordered by their distance to the mean of the support set and dealt to the subsets in
    turn, so neither the order of the examples nor that of the classes matters.

    Args:
        embeddings (`torch.FloatTensor` of shape `(B, k, dim)`), labels (`torch.LongTensor` of shape `(B, k)`):
            B support sets.
        max_size (`int`):
            Most examples of a subset.

    Returns:
        `list[torch.LongTensor]`: ascending indices (B, size) of each subset; sizes differ by at most 1.
    """
    batch, size = labels.shape
    if size <= max_size:
        return [torch.arange(size, device=labels.device).expand(batch, -1)]
    order = torch.tensor([_order(*rows) for rows in zip(embeddings, labels, strict=True)], device=labels.device)
    count = -(-size // max_size)
    return [order[:, start::count].sort(dim=1).values for start in range(count)]


def _order(embeddings: Tensor, labels: Tensor) -> list[int]:
    """Return indices (k,) class by class, those of a class by their distance to the mean of all."""
    distances, digests = _distances_to_mean(embeddings)
    members: dict[int, list[int]] = {}
    for i, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(i)
    # dealing continues from class to class, so their order must not depend on their numbers
    classes = sorted(members.values(), key=lambda own: (len(own), math.fsum(distances[i] for i in own)))
    return [i for own in classes for i in sorted(own, key=lambda i: (distances[i], digests[i]))]


def _distances_to_mean(embeddings: Tensor) -> tuple[list[float], list[bytes]]:
    """Return squared distances (k,) to the mean, independent of the order of the rows, and digests that break ties."""
    size = float(embeddings.abs().max())
    unit = 2.0 ** math.ceil(math.log2(size)) if size > 0 else 1.0
    chunks = embeddings.detach().split(CHUNK)

    def scaled(chunk: Tensor) -> np.ndarray:
        return np.ascontiguousarray(chunk.cpu().to(torch.float64).numpy()) / unit

    total = sum((np.rint(scaled(chunk) * FIXED_POINT).astype(np.int64).sum(0) for chunk in chunks), start=np.int64(0))
    mean = total / (len(embeddings) * FIXED_POINT)
    distances: list[float] = []
    digests: list[bytes] = []
    for chunk in chunks:
        rows = scaled(chunk)
        distances += np.square(rows - mean).sum(1).tolist()
        digests += [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return distances, digests


def seeded_orders(index: Tensor, count: int, seed: int) -> list[Tensor]:
    """Return row indices (B, size) in `count` orders: the given one, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    shuffles = [torch.randperm(index.shape[1], generator=generator) for _ in range(count - 1)]
    return [index, *(index[:, shuffle.to(index.device)] for shuffle in shuffles)]
