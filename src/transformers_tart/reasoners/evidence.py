"""The evidence of a support set for its views and hints: leave-one-out predictions, scaled hints, and statistics."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


VIEW_FEATURES = 6
HINT_FEATURES = 8
TASK_FEATURES = 7
SCALES = (0.5, 1.0, 2.0)  # of hints, at which their likelihood is read
FARTHEST = 4.0  # limit of the features
LEAST_SIZE = 1e-9  # in place of 0, the size of a support set without examples


@dataclass(frozen=True)
class Evidence:
    """V views and H hints of k labeled examples in C classes, for B tasks; k, V or H may be 0."""

    views: Tensor  # (B, k, V, C) leave-one-out log-probabilities, less the log-frequencies
    hints: Tensor  # (B, k, H, C) scaled
    members: Tensor  # (B, k, C) one-hot labels, times the weights of the examples
    log_frequency: Tensor  # (B, C)
    bias: Tensor  # (B, H) mean square of the centers of the hints, in units of their scale
    missing: Tensor  # (B, H) share of the classes of which a hint says nothing

    def log_probabilities(self, columns: Tensor) -> Tensor:
        """Return log-probabilities (B, k, A, C) of columns without the log-frequencies."""
        return torch.log_softmax(columns + self.log_frequency[:, None, None], dim=-1)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.members.device

    @property
    def columns(self) -> Tensor:
        """Columns (B, k, V + H, C) of both."""
        return torch.cat([self.views, self.hints], dim=2)

    def of_views(self) -> Tensor:
        """Mean log-likelihoods (B, V) of the labels."""
        if not self.views.shape[1]:
            return self.views.new_zeros(len(self.views), self.views.shape[2])
        return self._mean(self._likelihoods(self.log_probabilities(self.views)))

    @property
    def size(self) -> Tensor:
        """Sum (B,) of the weights of the examples."""
        return self.members.sum(dim=(1, 2))

    def _sum(self, values: Tensor) -> Tensor:
        """Return the weighted sum (B, A) of values (B, k, A) over the examples."""
        return (values * self.members.sum(-1, keepdim=True)).sum(1)

    def _mean(self, values: Tensor) -> Tensor:
        return self._sum(values) / self.size[:, None]

    def _likelihoods(self, log_probability: Tensor) -> Tensor:
        return (log_probability * (self.members > 0)[:, :, None]).sum(-1)

    def task_features(self) -> Tensor:
        """Statistics (B, TASK_FEATURES) of the task: sizes, and the balance of the classes."""
        num_views, classes = self.views.shape[2:]
        counts, size = self.members.sum(1), self.size
        share = (counts / size.clamp_min(LEAST_SIZE)[:, None]).clamp_min(1e-9)
        entropy = -(share * share.log()).sum(-1) / math.log(classes)
        features = [
            size.log1p() / 3,
            torch.full_like(size, math.log(classes) / 2),
            ((size + 1) / classes).log() / 2,
            torch.full_like(size, math.log1p(num_views)),
            torch.full_like(size, math.log1p(self.hints.shape[2])),
            counts.amin(1).log1p() / 3,
            entropy,
        ]
        return torch.stack(features, dim=1)

    def view_features(self) -> Tensor:
        """Statistics (B, V, VIEW_FEATURES): likelihood, accuracy, distance from the best, agreement."""
        batch, size, count, classes = self.views.shape
        if size == 0 or count == 0:
            return self.views.new_zeros(batch, count, VIEW_FEATURES)
        log_probability = self.log_probabilities(self.views)
        likelihood = self._likelihoods(log_probability)
        mean = self._mean(likelihood)
        best = likelihood.gather(2, mean.argmax(1)[:, None, None].expand(-1, size, 1))
        behind = likelihood - best
        lag = self._mean(behind)
        variance = self._mean((behind - lag[:, None]).square())
        error = (variance / self.size[:, None] + 1e-4).sqrt()
        probability = log_probability.exp()
        agreement = self._mean((probability * probability.mean(2, keepdim=True)).sum(-1))
        hinted = torch.softmax(self.hints.sum(2) + self.log_frequency[:, None], dim=-1)
        features = [
            1 + mean / math.log(classes),
            self._accuracy(self.views),
            lag / error / 3,
            lag,
            agreement,
            self._mean((probability * hinted[:, :, None]).sum(-1)),
        ]
        return torch.stack(features, dim=-1).clamp(-FARTHEST, FARTHEST)

    def hint_features(self) -> Tensor:
        """Statistics (B, H, HINT_FEATURES): likelihood at some scales, best scale, accuracy, agreement, bias, gaps."""
        batch, size, count, classes = self.hints.shape
        constant = [self.bias.log1p(), self.missing]
        if size == 0 or count == 0:
            empty = self.hints.new_zeros(batch, count, HINT_FEATURES - len(constant))
            return torch.cat([empty, torch.stack(constant, dim=-1)], dim=-1).clamp(-FARTHEST, FARTHEST)
        blind = self._mean(self._likelihoods(self.log_probabilities(torch.zeros_like(self.hints))))
        gains = [
            (self._mean(self._likelihoods(self.log_probabilities(scale * self.hints))) - blind) / math.log(classes)
            for scale in SCALES
        ]
        # a Newton step of the scale, from 0, under a standard normal prior
        probability = self.log_probabilities(torch.zeros_like(self.hints)).exp()
        mean = (probability * self.hints).sum(-1, keepdim=True)
        slope = self._sum(self._likelihoods(self.hints) - mean[..., 0])
        curvature = self._sum((probability * (self.hints - mean).square()).sum(-1))
        viewed = self.log_probabilities(self.views).exp().mean(2, keepdim=True) if self.views.shape[2] else 0.0
        agreement = self._mean(((self.hints - mean) * (viewed - probability)).sum(-1))
        features = [*gains, slope / (1 + curvature), self._accuracy(self.hints), agreement, *constant]
        return torch.stack(features, dim=-1).clamp(-FARTHEST, FARTHEST)

    def _accuracy(self, columns: Tensor) -> Tensor:
        """Return the share (B, A) of examples of which a column favors the label, less that of a blind guess."""
        top = columns.amax(-1, keepdim=True)
        is_top = (columns >= top).to(columns.dtype)
        is_top = is_top / is_top.sum(-1, keepdim=True)
        return self._mean(self._likelihoods(is_top)) - 1 / columns.shape[-1]
