"""The interface of architectures; the code that they share is in `modeling_reasoner.py`."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Architecture(nn.Module, ABC):
    """A network that encodes a support set once, then reads any number of queries, independently of each other."""

    max_classes: int | None = None  # largest number of classes in one pass; `None` for no limit
    max_support: int | None = None  # size of the largest support set; `None` for no limit

    @abstractmethod
    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> Any:
        """Encode support embeddings (B, k, dim) and labels (B, k) int64 as an immutable state with `to(device)`."""

    @abstractmethod
    def query(self, state: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, n, num_classes) float32 of query embeddings (B, n, dim)."""

    def init_weights(self) -> None:
        """Initialize weights that need other values than the defaults of transformers."""
