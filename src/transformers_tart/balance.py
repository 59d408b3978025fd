"""Balanced choices of labelled rows."""

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


__all__ = ["classes_in_turn"]
