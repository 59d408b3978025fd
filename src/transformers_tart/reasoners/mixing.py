"""Mixtures of predictions: the weights of the views of a support set, and averages of probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor


EVIDENCE_EXPONENT = 0.3  # power of each view's leave-one-out likelihood; 0 weighs all views alike, 1 trusts it fully


def weigh_views(log_likelihoods: Tensor, support_size: int | Tensor) -> Tensor:
    """Return the log-weights of views, in proportion to a power of their leave-one-out likelihoods.

    Args:
        log_likelihoods (`torch.FloatTensor` of shape `(views, batch)`):
            Mean leave-one-out log-likelihood of the support labels in each view, in nats an example.
        support_size (`int` or `torch.FloatTensor` of shape `(batch,)`):
            Number of examples, or the sum of their weights; more of them are more evidence.

    Returns:
        `torch.FloatTensor` of shape `(views, batch)`, whose exponentials sum to 1 over the views.
    """
    return torch.log_softmax(EVIDENCE_EXPONENT * support_size * log_likelihoods, dim=0)


def mix(logits: Sequence[Tensor], log_weights: Sequence[Tensor | float]) -> Tensor:
    """Average the probabilities of predictions (B, n, C), and return the logarithm of the average.

    Each log-weight is a number, or a tensor (B,) with one for each task.
    """
    weighted = []
    for prediction, weight in zip(logits, log_weights, strict=True):
        by_task = weight[:, None, None] if isinstance(weight, Tensor) else weight
        weighted.append(torch.log_softmax(prediction, dim=-1) + by_task)
    return torch.logsumexp(torch.stack(weighted), dim=0)
