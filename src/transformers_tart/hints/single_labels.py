"""Labels on their own: each is compared with inputs without content, not with other labels."""

import torch
from torch import Tensor

from transformers_tart.reasoners.modeling_reasoner import TartReasoner


def as_task(hints: Tensor, calibration: Tensor, is_multi_label: bool = False) -> Tensor:
    """Return hints as a batch of one task for the reasoner; a single label is compared with inputs without content.

    Args:
        hints (`torch.FloatTensor` of shape `(n, num_hints, num_labels)`):
            Hints of n inputs.
        calibration (`torch.FloatTensor` of shape `(m, num_hints, num_labels)`):
            Hints of inputs without content, or without labels.
        is_multi_label (`bool`, *optional*, defaults to `False`):
            Whether each label is a task of its own, as a single one is.

    Returns:
        `torch.FloatTensor` of shape `(1, n, num_hints, num_labels)`, or `(num_labels, n, num_hints, 2)`, as in
        [`compare_labels`], of labels on their own.
    """
    is_alone = is_multi_label or hints.shape[2] == 1
    return compare_labels(hints, calibration) if is_alone else hints[None]


def compare_labels(hints: Tensor, calibration: Tensor) -> Tensor:
    """Return a task of two classes for each label: this label, and the mean of its hints in the calibration.

    Args:
        hints (`torch.FloatTensor` of shape `(n, num_hints, num_labels)`), calibration (`torch.FloatTensor`):
            As in [`as_task`].

    Returns:
        `torch.FloatTensor` of shape `(num_labels, n, num_hints, 2)`.
    """
    mean = torch.zeros_like(calibration.sum(0)) if len(calibration) == 0 else calibration.nanmean(0).nan_to_num()
    return torch.stack([hints, mean.to(hints).expand_as(hints)], dim=-1).permute(2, 0, 1, 3)


def score_alone(reasoner: TartReasoner, hints: Tensor, calibration: Tensor) -> Tensor:
    """Return the log-odds (n, num_labels) of each label on its own, as a reasoner reads its hints.

    Args:
        reasoner ([`TartReasoner`]):
            A reasoner that reads hints.
        hints (`torch.FloatTensor` of shape `(n, num_hints, num_labels)`), calibration (`torch.FloatTensor`):
            As in [`as_task`]. The log-odds of a label are 0 where all of its hints are NaN.
    """
    num_labels = hints.shape[2]
    labels = torch.zeros(num_labels, 0, dtype=torch.long, device=hints.device)
    known, unlabeled = (compare_labels(each, calibration) for each in (hints[:0], calibration.to(hints)))
    state = reasoner.prepare(hints.new_zeros(num_labels, 0, 1), labels, known, unlabeled, num_labels=2)
    queries = hints.new_zeros(num_labels, len(hints), 1)
    logits = reasoner.query(state, queries, compare_labels(hints, calibration))
    return (logits[..., 0] - logits[..., 1]).T
