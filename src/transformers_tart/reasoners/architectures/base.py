"""The interface of architectures; the code that they share is in `modeling_reasoner.py`."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class ArchitectureState(Protocol):
    """An encoded support set of an architecture; immutable."""

    def to(self, device: torch.device | str) -> Any:
        """Move the state to another device."""


class Architecture(nn.Module, ABC):
    """A network that encodes a support set once, then reads any number of queries, independently of each other.

    Attributes:
        max_classes: largest number of classes in one pass; `None` for no limit.
        max_support: size of the largest support set; `None` for no limit.
    """

    max_classes: int | None = None
    max_support: int | None = None

    @abstractmethod
    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> Any:
        """Encode support embeddings (B, k, dim) float with labels (B, k) int64 as an [`ArchitectureState`]."""

    @abstractmethod
    def query(self, state: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, n, num_classes) float32 of query embeddings (B, n, dim)."""

    def init_weights(self) -> None:
        """Initialize weights that need other values than the defaults of transformers."""


__all__ = ["Architecture", "ArchitectureState"]
