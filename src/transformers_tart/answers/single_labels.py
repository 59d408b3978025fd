"""Labels on their own: each is compared with inputs without content, not with the other labels."""

import torch
from torch import Tensor

from transformers_tart.reasoners.modeling_reasoner import TartReasoner


def score_alone(reasoner: TartReasoner, hints: Tensor, calibration: Tensor) -> Tensor:
    """Return the log-odds of each label on its own, as the reasoner reads its hints.

    Args:
        reasoner ([`TartReasoner`]):
            A reasoner that reads hints.
        hints (`torch.FloatTensor` of shape `(n, num_hints, num_labels)`):
            Hints of the queries, NaN where missing.
        calibration (`torch.FloatTensor` of shape `(m, num_hints, num_labels)`):
            The same of inputs without content, or without labels; their mean is what a label is compared with.

    Returns:
        `torch.FloatTensor` of shape `(n, num_labels)`; 0 where no hint says anything of a label.
    """
    calibration = calibration.to(hints)
    mean = calibration.nanmean(0).nan_to_num() if len(calibration) else torch.zeros_like(hints[0])

    def compare(rows: Tensor) -> Tensor:
        # a task (rows, num_hints, 2) for each label
        return torch.stack([rows, mean.expand_as(rows)], dim=-1).permute(2, 0, 1, 3)

    num_labels = hints.shape[2]
    labels = torch.zeros(num_labels, 0, dtype=torch.long, device=hints.device)
    known = {"support_hints": compare(hints[:0]), "unlabeled_hints": compare(calibration)}
    state = reasoner.prepare(hints.new_zeros(num_labels, 0, 1), labels, **known, num_labels=2)
    logits = reasoner.query(state, hints.new_zeros(num_labels, len(hints), 1), compare(hints))
    return (logits[..., 0] - logits[..., 1]).T
