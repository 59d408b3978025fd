"""Stacking: weights of the smoothers, fitted to their leave-one-out predictions of the support set.

The weights of the smoothers and an offset for each class maximize the posterior under a softmax likelihood of the
support labels and a normal prior (multinomial logistic regression on leave-one-out predictions; Wolpert 1992, "Stacked
generalization"). With few examples the prior decides, with many the data. Since each example was held out, the fitted
probabilities are calibrated.

The weight of smoother a is level * share_a + deviation_a. The level is the confidence in all smoothers together, which
few examples suffice to estimate; the deviations distinguish between them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.checks.tensors import at_least_float32
from transformers_tart.reasoners.architectures.smoothers import in_float32


STEPS = 8
STEP_SIZES = (1.0, 0.5, 0.2, 0.05, 0.0)  # fractions of a Newton step; the best is taken, so the objective never rises
ROUNDING = 1e-6  # relative; of steps whose objectives differ by less, the longest is taken
DAMPING = 1e-5  # added share of the Hessian's diagonal, which is indefinite where columns are nearly equal


@dataclass(frozen=True)
class StackPrior:
    """Normal prior distributions, for a batch of B tasks and A smoothers."""

    shares: Tensor  # (B, A) shares of the smoothers, which sum to 1
    level: Tensor  # (B, 1) mean of the level; the means of deviations and offsets are 0
    level_precision: Tensor  # (B, 1) inverse variance of the level
    deviation_precision: Tensor  # (B, 1) inverse variance of the deviations
    offset_precision: Tensor  # (B, 1) inverse variance of the offsets

    @property
    def mean(self) -> Tensor:
        """Means (B, 1 + A) of the level and the deviations."""
        return torch.cat([self.level, torch.zeros_like(self.shares)], dim=1)

    @property
    def precision(self) -> Tensor:
        """Inverse variances (B, 1 + A) of the level and the deviations."""
        return torch.cat([self.level_precision, self.deviation_precision.expand_as(self.shares)], dim=1)


@dataclass(frozen=True)
class NormalPrior:
    """Independent normal distributions of A weights and of the offsets, whose means are 0, for B tasks."""

    mean: Tensor  # (B, A)
    precision: Tensor  # (B, A) inverse variances
    offset_precision: Tensor  # (B, 1) inverse variance of the offsets


@dataclass(frozen=True)
class _Problem:
    """Predictions (B, k, A, C), one-hot labels (B, k, C) times weights, log-frequencies (B, 1, C), and the prior."""

    predictions: Tensor
    members: Tensor
    log_frequency: Tensor
    prior: NormalPrior

    @property
    def weights(self) -> Tensor:
        """Weights (B, k, 1) of the examples."""
        return self.members.sum(-1, keepdim=True)

    def logits(self, weights: Tensor, offset: Tensor) -> Tensor:
        """Return logits (B, k, C)."""
        blended = torch.einsum("bkac,ba->bkc", self.predictions, weights)
        return blended + offset[:, None] + self.log_frequency

    def objective(self, weights: Tensor, offset: Tensor) -> Tensor:
        """Return the negative log posterior (B,) up to a constant."""
        log_probability = torch.log_softmax(self.logits(weights, offset), dim=-1)
        from_prior = self.prior.precision * (weights - self.prior.mean).square()
        penalty = from_prior.sum(1) + self.prior.offset_precision[:, 0] * offset.square().sum(1)
        return penalty / 2 - (log_probability * self.members).sum(dim=(1, 2))

    def step(self, weights: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decrements of weights (B, A) and offsets (B, C) in a Newton step with constant curvature."""
        probability = torch.softmax(self.logits(weights, offset), dim=-1)
        with torch.no_grad():
            curvature = self._curvature(probability)
        error = probability * self.weights - self.members
        of_weights = torch.einsum("bkac,bkc->ba", self.predictions, error)
        of_weights = of_weights + self.prior.precision * (weights - self.prior.mean)
        of_offset = error.sum(1) + self.prior.offset_precision * offset
        slope = torch.cat([of_weights, of_offset], dim=1)
        step = torch.cholesky_solve(slope[..., None], curvature)[..., 0]
        return step[:, : weights.shape[1]], step[:, weights.shape[1] :]

    def _curvature(self, probability: Tensor) -> Tensor:
        """Return the Cholesky factor (B, A + C, A + C) of the Hessian."""
        mean = (self.predictions * probability[:, :, None]).sum(-1, keepdim=True)
        centered = self.predictions - mean  # as in a covariance, to avoid negative variances by rounding
        weighted = probability * self.weights
        probable = centered * weighted[:, :, None]
        of_weights = centered.transpose(1, 2).flatten(2) @ probable.transpose(1, 2).flatten(2).transpose(1, 2)
        mixed = probable.sum(1)
        of_offset = torch.diag_embed(weighted.sum(1)) - weighted.transpose(1, 2) @ probability
        hessian = torch.cat([torch.cat([of_weights, mixed], 2), torch.cat([mixed.transpose(1, 2), of_offset], 2)], 1)
        offsets = self.prior.offset_precision.expand(-1, probability.shape[-1])
        precision = torch.cat([self.prior.precision, offsets], 1)
        return torch.linalg.cholesky(
            hessian + torch.diag_embed(precision + DAMPING * hessian.diagonal(dim1=1, dim2=2))
        )


@in_float32
def fit_stack(predictions: Tensor, members: Tensor, log_frequency: Tensor, prior: StackPrior) -> tuple[Tensor, Tensor]:
    """Fit weights (B, A) of the smoothers and offsets (B, C) of the classes by Newton's method.

    The inputs are leave-one-out predictions (B, k, A, C) of the support set, its one-hot labels (B, k, C) times the
    weights of the examples, and the logarithms (B, C) of the shares of the classes. The results are differentiable
    with respect to the prior, as the optimum is (implicit function theorem).
    """
    predictions = at_least_float32(predictions)
    shared = torch.einsum("bkac,ba->bkc", predictions, prior.shares)
    columns = torch.cat([shared[:, :, None], predictions], dim=2)
    normal = NormalPrior(prior.mean, prior.precision, prior.offset_precision)
    weights, offset = fit_weights(columns, members, log_frequency, normal)
    return weights[:, :1] * prior.shares + weights[:, 1:], offset


@in_float32
def fit_weights(columns: Tensor, members: Tensor, log_frequency: Tensor, prior: NormalPrior) -> tuple[Tensor, Tensor]:
    """Fit weights (B, A) of columns (B, k, A, C) and offsets (B, C) of the classes; the rest is as in `fit_stack`."""
    problem = _Problem(columns, members, log_frequency[:, None], prior)
    sizes = torch.tensor(STEP_SIZES, device=members.device, dtype=members.dtype)
    with torch.no_grad():
        weights, offset = prior.mean, torch.zeros_like(log_frequency)
        for _ in range(STEPS):
            step, offset_step = problem.step(weights, offset)
            tried = [problem.objective(weights - size * step, offset - size * offset_step) for size in STEP_SIZES]
            objectives = torch.stack(tried)
            least = objectives.amin(0)
            size = sizes[(objectives <= least + ROUNDING * least.abs()).int().argmax(0)][:, None]  # the first such
            weights, offset = weights - size * step, offset - size * offset_step
    if torch.is_grad_enabled():
        # at the optimum the step is almost zero, but its gradient is that of the optimum
        step, offset_step = problem.step(weights, offset)
        weights, offset = weights - (step - step.detach()), offset - (offset_step - offset_step.detach())
    return weights, offset


@in_float32
def blend(predictions: Tensor, weights: Tensor, offset: Tensor) -> Tensor:
    """Return the log-probabilities (B, n, C) of a fitted stack, given predictions (B, n, A, C).

    The offsets (B, C) include the log-frequencies.
    """
    logits = torch.einsum("bkac,ba->bkc", at_least_float32(predictions), weights) + offset[:, None]
    return torch.log_softmax(logits, dim=-1)
