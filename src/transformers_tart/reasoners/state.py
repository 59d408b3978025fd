"""Encoded support sets, one view or several, with label hints or without."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from transformers_tart.projection import Projection
from transformers_tart.reasoners.architectures.base import to_device
from transformers_tart.reasoners.hint_scaling import HintScaling


@dataclass(frozen=True)
class Part:
    """A subset of the support set, encoded in one view."""

    index: Tensor  # (batch, size) of its examples
    projection: Projection
    state: Any  # of the architecture
    weight: float  # in the answer of the view; those of all parts sum to 1


@dataclass(frozen=True)
class ViewState:
    """A support set encoded in one view."""

    dim: int
    parts: tuple[Part, ...]  # none without examples
    held_out: Tensor | None  # (batch, k, num_labels) leave-one-out log-probabilities; `None` if there are none


@dataclass(frozen=True)
class Combination:
    """Weights of V views and H hints, whose sum is the answer."""

    views: Tensor  # (batch, V) weights of the log-probabilities, less the log-frequencies
    hints: Tensor  # (batch, H) weights of the scaled hints
    offset: Tensor  # (batch, num_labels), with the log-frequencies
    log_frequency: Tensor  # (batch, num_labels)
    scaling: HintScaling
    shrinkage: Tensor  # (batch, H) share of its center that each hint loses


@dataclass(frozen=True)
class ReasonerState:
    """An encoded support set, an argument of [`TartReasoner.query`]."""

    num_labels: int
    batch: int
    views: tuple[ViewState, ...]
    log_weights: Tensor  # (views, batch) logarithms of the views' shares in a mixture
    combination: Combination | None = None  # in place of a mixture

    def to(self, device: torch.device | str) -> "ReasonerState":
        """Move the state to another device."""
        return to_device(self, device)


@dataclass(frozen=True)
class Votes:
    """The parts of an answer to n queries from k examples in V views, and H hints.

    The logits of the answer are the sum of those of the views and hints and the offset, up to a constant. Those of a
    mixture of views are weighted logarithms of their probabilities, whose sum is close to the answer.
    """

    logits: Tensor  # (batch, n, num_labels)
    view_weights: Tensor  # (batch, V)
    hint_weights: Tensor  # (batch, H)
    view_logits: Tensor  # (V, batch, n, num_labels)
    hint_logits: Tensor  # (H, batch, n, num_labels)
    offset: Tensor  # (batch, num_labels)
    influence: (
        Tensor | None
    )  # (batch, n, k) share of each example in the logit of the predicted class; `None` if unknown


@dataclass
class TartReasonerOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross-entropy of `query_labels`, in nats, when they are given.
        logits (`torch.FloatTensor` of shape `(batch, n, num_labels)`):
            Log-probabilities up to a constant.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
