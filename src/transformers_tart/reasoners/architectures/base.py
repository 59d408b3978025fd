"""What every architecture provides; the code common to all is in `modeling_reasoner.py`."""

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class ArchitectureState(Protocol):
    """A support set as an architecture has read it; immutable."""

    def to(self, device: torch.device | str) -> Any:
        """The same state on another device."""


class Architecture(nn.Module, ABC):
    """Reads a support set once, then any number of queries, which never see each other.

    Attributes:
        max_classes: most classes it can tell apart in one pass; `None`: any number.
        max_support: largest support set it can read; `None`: no limit of its own.
    """

    max_classes: int | None = None
    max_support: int | None = None

    @abstractmethod
    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> Any:
        """Read support embeddings (B, k, dim) float with labels (B, k) int64 and return an [`ArchitectureState`]."""

    @abstractmethod
    def query(self, state: Any, embeddings: Tensor) -> Tensor:
        """Logits (B, n, num_classes) float32 of query embeddings (B, n, dim)."""

    def init_weights(self) -> None:
        """Set the first weights where the defaults of transformers do not suit."""


__all__ = ["Architecture", "ArchitectureState"]
