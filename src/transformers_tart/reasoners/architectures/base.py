"""The interface of architectures; the code that they share is in `modeling_reasoner.py`."""

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


class Architecture(nn.Module, ABC):
    """A network that encodes a support set once, then reads any number of queries, independently of each other.

    It is built from a [`TartReasonerConfig`] alone, and has a weight at least, which tells its device and dtype. The
    state of a support set is a frozen dataclass of tensors, which `to_device` moves.
    """

    max_classes: int | None = None  # largest number of classes in one pass; `None` for no limit
    max_support: int | None = None  # size of the largest support set; `None` for no limit
    takes_weights: bool = False  # whether `prepare` takes weights (B, k) of the examples as its last argument

    @abstractmethod
    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> Any:
        """Encode support embeddings (B, k, dim) and labels (B, k) int64 as a frozen dataclass."""

    @abstractmethod
    def query(self, state: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, n, num_classes) float32 of query embeddings (B, n, dim)."""

    def held_out(self, state: Any) -> Tensor | None:
        """Return leave-one-out log-probabilities (B, k, C) of the support set; `None` if there are none.

        Views of a support set are weighed by them, and alike where there are none.
        """
        return None

    def influence(self, state: Any, embeddings: Tensor) -> Tensor | None:
        """Return the contributions (B, n, k, C) of the examples to the logits of queries; `None` if unknown."""
        return None

    def init_weights(self) -> None:
        """Initialize weights that need other values than the defaults of transformers."""


def to_device(state: Any, device: torch.device | str) -> Any:
    """Move tensors, projections, and tuples and dataclasses of them to another device; other values stay."""
    if isinstance(state, tuple):
        return tuple(to_device(value, device) for value in state)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: to_device(getattr(state, f.name), device) for f in fields(state)})
    return state.to(device) if hasattr(state, "to") else state
