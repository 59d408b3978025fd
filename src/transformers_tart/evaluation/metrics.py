"""How good predicted probabilities are, as numbers."""

from collections.abc import Callable

import torch
from torch import Tensor


CALIBRATION_BINS = 15
SMALLEST = 1e-12  # a probability of zero for what came true would cost infinitely much


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of rows (n, classes) whose largest probability is at their label (n,)."""
    return (probabilities.argmax(-1) == labels).double().mean().item()


def log_loss(probabilities: Tensor, labels: Tensor) -> float:
    """Mean negative log-probability of the labels, in nats; probabilities below 1e-12 count as that."""
    picked = probabilities.double().gather(1, labels[:, None])
    return -picked.clamp_min(SMALLEST).log().mean().item()


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Mean squared distance of the probabilities from the truth, summed over the classes: 0 to 2 (Brier 1950)."""
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities.double() - truth).square().sum(1).mean().item()


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance between confidence and accuracy over bins of equal width of the confidence (Guo et al. 2017)."""
    confidence, guess = probabilities.double().max(1)
    right = (guess == labels).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, confidence - right)
    return gap.abs().sum().item() / len(labels)


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Mean of the F1 scores of the classes among predictions (n,) or labels (n,)."""
    hits, guessed, true = _counts(predictions, labels)
    return (2 * hits / (guessed + true)).mean().item()


def matthews_correlation(predictions: Tensor, labels: Tensor) -> float:
    """Correlation of predictions (n,) and labels (n,), for any number of classes (Gorodkin 2004): -1 to 1.

    0 where the predictions or the labels are all of one class.
    """
    hits, guessed, true = _counts(predictions, labels)
    total = true.sum().square()
    spread = (total - guessed.square().sum()) * (total - true.square().sum())
    covariance = hits.sum() * true.sum() - guessed @ true
    return (covariance / spread.sqrt()).item() if spread > 0 else 0.0


def _counts(predictions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class that occurs (classes,): right predictions, all predictions, labels."""
    classes, numbers = torch.cat([predictions, labels]).unique(return_inverse=True)
    guesses, truth = numbers.split(len(labels))
    groups = (truth[guesses == truth], guesses, truth)
    hits, guessed, true = (torch.bincount(group, minlength=len(classes)).double() for group in groups)
    return hits, guessed, true


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "log_loss": log_loss,
    "brier_score": brier_score,
    "calibration_error": expected_calibration_error,
}

__all__ = [
    "METRICS",
    "accuracy",
    "brier_score",
    "expected_calibration_error",
    "log_loss",
    "macro_f1",
    "matthews_correlation",
]
