"""Metrics of predicted classes (n,) and of probabilities (n, classes), against labels (n,)."""

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor


Measure: TypeAlias = Callable[[Tensor, Tensor], float]

CALIBRATION_BINS = 15
MOST_WRONG = 10  # predictions of a run that are listed
SUM_TOLERANCE = 1e-2  # of the sum of probabilities: bfloat16 rounds them by up to 0.4%
SMALLEST = torch.finfo(torch.float64).eps  # probabilities are clipped by it, as scikit-learn clips those of float64


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose predicted class, or largest probability, is at their label."""
    predictions = predictions if predictions.dim() == 1 else predictions.argmax(-1)
    return (predictions == labels).double().mean().item()


def macro_f1(predictions: Tensor, labels: Tensor) -> float:
    """Return the mean of the F1 scores of the classes among predictions or labels."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels.numpy(), predictions.numpy(), average="macro", zero_division=0.0))


def matthews_correlation(predictions: Tensor, labels: Tensor) -> float:
    """Return the correlation of predictions and labels, -1 to 1; 0 where one of them is constant."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found", UserWarning)
        return float(matthews_corrcoef(labels.numpy(), predictions.numpy()))


def log_loss(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean negative log-probability of the labels in nats, at most 36 of each row.

    It is that of scikit-learn, without its warning on rows that bfloat16 has rounded.
    """
    picked = probabilities.double().gather(1, labels[:, None])
    return -picked.clamp(SMALLEST, 1 - SMALLEST).log().mean().item()


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over the classes (Brier 1950)."""
    truth = torch.nn.functional.one_hot(labels, probabilities.shape[1])
    return (probabilities.double() - truth).square().sum(1).mean().item()


def calibration_bins(probabilities: Tensor, labels: Tensor) -> list[list[float]]:
    """Return the number of rows, the sum of their largest probabilities and the number of correct predictions, for
    bins of equal width of the largest probability; a bin includes its right edge.
    """
    confidence, guess = probabilities.detach().cpu().double().max(1)
    right = (guess == labels.cpu()).double()
    bin_of = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    columns = torch.stack([torch.ones_like(confidence), confidence, right], dim=1)
    return torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64).index_add_(0, bin_of, columns).tolist()


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy (Guo et al. 2017)."""
    bins = calibration_bins(probabilities, labels)
    return sum(abs(confidence - right) for _, confidence, right in bins) / len(labels)


def confusion(predictions: Tensor, labels: Tensor) -> list[list[int]]:
    """Return label, predicted class and number of rows of each pair that occurs."""
    pairs, counts = torch.stack([labels, predictions], dim=1).unique(dim=0, return_counts=True)
    return torch.cat([pairs, counts[:, None]], dim=1).tolist()


def most_confidently_wrong(probabilities: Tensor, labels: Tensor, count: int = MOST_WRONG) -> list[list[float]]:
    """Return row, predicted class and its probability of at most `count` wrong predictions, the surest first."""
    confidence, guess = probabilities.double().max(1)
    order = confidence.masked_fill(guess == labels, -1.0).argsort(descending=True, stable=True)
    wrong = [i for i in order[:count].tolist() if guess[i] != labels[i]]
    return [[i, guess[i].item(), confidence[i].item()] for i in wrong]


LABEL_METRICS: dict[str, Measure] = {metric.__name__: metric for metric in (accuracy, macro_f1, matthews_correlation)}
SCORE_METRICS: dict[str, Measure] = {metric.__name__: metric for metric in (log_loss, brier_score, calibration_error)}
METRICS: dict[str, Measure] = {"accuracy": accuracy, **SCORE_METRICS}  # those of probabilities


def measure(
    predictions: Tensor, labels: Tensor, probabilities: Tensor | None = None, only: str | None = None
) -> dict[str, float]:
    """Return all metrics by name, or a single one; those of probabilities only where these are given."""
    given = [(LABEL_METRICS, predictions)] + ([] if probabilities is None else [(SCORE_METRICS, probabilities)])
    return {
        name: metric(values, labels)
        for metrics, values in given
        for name, metric in metrics.items()
        if only in (None, name)
    }


def judge(probabilities: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return the fields of a record that compare probabilities (n, classes) with labels (n,)."""
    predictions = probabilities.argmax(-1)
    return {
        "metrics": measure(predictions, labels, probabilities),
        "calibration": calibration_bins(probabilities, labels),
        "confusion": confusion(predictions, labels),
        "wrong": most_confidently_wrong(probabilities, labels),
    }
