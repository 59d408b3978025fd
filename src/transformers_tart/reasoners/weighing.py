"""The weighing of views and hints: a small network reads their evidence and sets a prior of their weights.

The logits of an answer are a weighted sum of the log-probabilities of the views and of the scaled hints, with an
offset for each class. The weights maximize the posterior of the support labels, given leave-one-out predictions, as
those of the smoothers within a view do. With few examples the prior decides, with many the data.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, softplus
from transformers import initialization as init

from transformers_tart.checks.tensors import at_least_float32
from transformers_tart.reasoners.architectures.stacking import NormalPrior
from transformers_tart.reasoners.evidence import HINT_FEATURES, TASK_FEATURES, VIEW_FEATURES, Evidence


# Before training: level of the views together and exponent of their evidence, then precisions of the level, of the
# deviations of the views, and of the offsets; for each hint its weight and the precision of it.
FIRST_TASK = (1.0, 0.3, 4.0, 30.0, 3.0)
FIRST_HINT = (0.5, 3.0)
FIRST_SHRINKAGE = 1.0  # logit of the share of its center that is subtracted from a hint
CENTER_FEATURES = 4


class Linear32(nn.Linear):
    """A linear layer that computes in float32, or in float64 where its weights are in that."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs (..., out_features)."""
        weight = at_least_float32(self.weight)
        return linear(input.to(weight.dtype), weight, self.bias.to(weight.dtype))


class Weighing(nn.Module):
    """A network that is equivariant in views, hints, examples and classes."""

    def __init__(self, size: int):
        super().__init__()
        self.view = Linear32(VIEW_FEATURES + TASK_FEATURES, size)
        self.hint = Linear32(HINT_FEATURES + TASK_FEATURES, size)
        self.task = Linear32(TASK_FEATURES + 2 * size, size)
        self.mixed_view = Linear32(2 * size, size)
        self.mixed_hint = Linear32(2 * size, size)
        self.view_out = Linear32(size, 1)
        self.hint_out = Linear32(size, len(FIRST_HINT))
        self.task_out = Linear32(size, len(FIRST_TASK))
        self.center_in = Linear32(CENTER_FEATURES, size)
        self.center_out = Linear32(size, 1)

    def init_weights(self) -> None:
        """Initialize a prior around that of weights by evidence, set by hand."""
        for layer in self.children():
            assert isinstance(layer, nn.Linear)
            init.normal_(layer.weight, std=(3 * layer.in_features) ** -0.5)
            init.zeros_(layer.bias)
        for layer in (self.view_out, self.hint_out, self.task_out, self.center_out):
            init.zeros_(layer.weight)
        init.copy_(self.task_out.bias, torch.tensor(FIRST_TASK).log())
        weight, precision = FIRST_HINT
        init.copy_(self.hint_out.bias, torch.tensor([weight, precision]).expm1().log())
        init.copy_(self.center_out.bias, torch.tensor([FIRST_SHRINKAGE]))

    def shrinkage(self, bias: Tensor, error: Tensor, num_labels: int, size: Tensor) -> Tensor:
        """Return the shares (B, H) of their centers that hints lose, from `HintScaling` and the sizes of the task."""
        classes, size = torch.full_like(bias, math.log(num_labels)), (size + 1).log()[:, None].expand_as(bias)
        features = torch.stack([bias.log1p(), error.clamp_min(1e-4).log() / 3, classes / 3, size / 3], dim=-1)
        return torch.sigmoid(self.center_out(gelu(self.center_in(features))))[..., 0]

    def forward(self, evidence: Evidence) -> tuple[Tensor, NormalPrior]:
        """Return shares (B, V) of the views, and the prior (B, 1 + V + H) of the weights.

        The weights are those of the views' shared prediction, of each view's deviation from it, and of each hint.
        """
        task = evidence.task_features()
        size, num_views = evidence.size[:, None], evidence.views.shape[2]
        views = gelu(self.view(_join(evidence.view_features(), task)))
        hints = gelu(self.hint(_join(evidence.hint_features(), task)))
        pooled = torch.cat([task, _mean(views), _mean(hints)], dim=-1)
        task = gelu(self.task(pooled))
        level, exponent, *precisions = self.task_out(task).clamp(-5.0, 5.0).exp().split(1, dim=-1)
        of_level, of_deviation, of_offset = precisions
        scores = self.view_out(gelu(self.mixed_view(_join(views, task))))[..., 0]
        shares = torch.softmax(exponent * size * evidence.of_views() + scores, dim=-1)
        of_hints = softplus(self.hint_out(gelu(self.mixed_hint(_join(hints, task)))))
        mean = torch.cat([level, level.new_zeros(len(level), num_views), of_hints[..., 0]], dim=1)
        precision = torch.cat([of_level, of_deviation.expand(-1, num_views), of_hints[..., 1] + 0.1], dim=1)
        return shares, NormalPrior(mean, precision, of_offset)


def _join(each: Tensor, task: Tensor) -> Tensor:
    """Append features (B, F) of the task to those (B, n, G) of each view or hint."""
    return torch.cat([each, task[:, None].expand(-1, each.shape[1], -1)], dim=-1)


def _mean(hidden: Tensor) -> Tensor:
    """Return the mean (B, size) over views or hints (B, n, size), 0 for none."""
    return hidden.sum(1) / max(hidden.shape[1], 1)
