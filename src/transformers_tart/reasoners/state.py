"""Encoded support sets, one view or several."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transformers_tart.projection import Projection
from transformers_tart.reasoners.architectures.base import to_device


@dataclass(frozen=True)
class ViewState:
    """A support set encoded in one view."""

    dim: int
    parts: tuple[tuple[Projection, Any], ...]  # with the architecture's state, for each subset of the support set
    weights: tuple[float, ...]  # share of the support set in each part
    log_likelihood: Tensor  # (batch,) leave-one-out, mean over examples; 0 where the architecture computes none


@dataclass(frozen=True)
class ReasonerState:
    """An encoded support set, an argument of [`TartReasoner.query`]."""

    num_labels: int
    one_vs_rest: bool  # the classes were read as as many binary tasks, stacked in the batch
    batch: int
    views: tuple[ViewState, ...]
    log_weights: Tensor  # (views, batch) logarithms of the views' shares in the answer

    def to(self, device: torch.device | str) -> "ReasonerState":
        """Move the state to another device."""
        return to_device(self, device)
