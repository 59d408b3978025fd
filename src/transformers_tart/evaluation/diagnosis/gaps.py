"""Accuracies of methods: the gaps between them, and TART's by the number of examples.

The gaps are those of arXiv 2306.07536 (section 3.1). With the same examples, fine-tuning beats prompting by

    performance gap = (fine-tuning - linear probe) + (linear probe - prompting).

The first part is the representation gap, which a better representation would close; the second is the reasoning gap,
which a better use of the same representation would close. TART is meant to close the second.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, linear_regression

import torch

from transformers_tart.evaluation.diagnosis.shift import seen_log_loss
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.metrics import accuracy
from transformers_tart.evaluation.report.statistics import Estimate, estimate


FINE_TUNING, PROMPTING, PROBE, TART = "fine_tune", "prompting", "logistic_regression", "tart"


@dataclass(frozen=True)
class Outcome:
    """A method's accuracies in points and log losses in nats, one for each support set.

    The log loss is that of queries whose class has an example.
    """

    accuracies: tuple[float, ...]
    log_losses: tuple[float, ...]


@dataclass(frozen=True)
class Gaps:
    """Accuracies and their differences in points, with 95% intervals over the support sets."""

    accuracies: dict[str, Estimate]  # by method
    missing: dict[str, str]  # reasons why methods could not be measured
    performance: Estimate | None  # fine-tuning minus prompting
    representation: Estimate | None  # fine-tuning minus linear probe
    reasoning: Estimate | None  # linear probe minus prompting
    remaining: Estimate | None  # linear probe minus TART
    closed: Estimate | None  # share of the reasoning gap that TART closes, if the interval of that gap is above 0


@dataclass(frozen=True)
class LearningCurve:
    """TART's accuracy in points by k, on nested support sets."""

    accuracies: dict[int, Estimate]  # by k
    slope: Estimate | None  # points for twice the examples, by least squares on log2(k); `None` for a single k


def measure_methods(
    context: TaskContext, supports: Sequence[Support], methods: Mapping[str, Method], progress: Callable[[str], None]
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Measure methods, and return the outcomes and the errors of those that cannot be used on the task.

    TART and the probe must be usable: their errors are raised.
    """
    truth = torch.tensor(context.task.test_labels)
    outcomes: dict[str, Outcome] = {}
    missing: dict[str, str] = {}
    for name, method in methods.items():
        accuracies, losses = [], []
        try:
            for support in supports:
                progress(f"{name}, seed {support.seed}")
                probabilities = method(context, support)
                accuracies.append(100 * accuracy(probabilities, truth))
                losses.append(seen_log_loss(probabilities, truth, context.labels(support)))
        except ValueError as err:
            if name in (TART, PROBE):
                raise
            missing[name] = str(err)
        else:
            outcomes[name] = Outcome(tuple(accuracies), tuple(losses))
    return outcomes, missing


def decompose(outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Gaps:
    """Compute the gaps from outcomes on the same support sets."""

    def differences(first: str, second: str) -> list[float]:
        if first not in outcomes or second not in outcomes:
            return []
        return [a - b for a, b in zip(outcomes[first].accuracies, outcomes[second].accuracies, strict=True)]

    pairs = ((FINE_TUNING, PROMPTING), (FINE_TUNING, PROBE), (PROBE, PROMPTING), (PROBE, TART))
    performance, representation, reasoning, remaining = (
        estimate(gap) if (gap := differences(*pair)) else None for pair in pairs
    )
    is_shown = reasoning is not None and reasoning.low > 0
    closed = ratio(differences(TART, PROMPTING), differences(PROBE, PROMPTING)) if is_shown else None
    accuracies = {name: estimate(outcome.accuracies) for name, outcome in outcomes.items()}
    return Gaps(accuracies, dict(missing), performance, representation, reasoning, remaining, closed)


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """Estimate the mean of the parts over the mean of the wholes (Cochran 1977, section 2.11)."""
    share = fmean(parts) / fmean(wholes)
    residuals = estimate([part - share * whole for part, whole in zip(parts, wholes, strict=True)])
    spread = None if residuals.half_width is None else residuals.half_width / math.fabs(fmean(wholes))
    return Estimate(share, spread)


def curve_sizes(k: int, num_classes: int) -> list[int]:
    """Return a quarter of k, half of it and k, without sizes at which a class would have no example."""
    return [size for size in sorted({k // 4, k // 2, k}) if size == k or size >= max(2, num_classes)]


def fit_curve(accuracies: Mapping[int, Sequence[float]]) -> LearningCurve:
    """Fit the curve to accuracies in points by k, with those of every k in the same order of seeds."""
    sizes = sorted(accuracies)
    slope = None
    if len(sizes) > 1:
        doublings = [math.log2(k) for k in sizes]
        by_seed = zip(*(accuracies[k] for k in sizes), strict=True)
        slope = estimate([linear_regression(doublings, values).slope for values in by_seed])
    return LearningCurve({k: estimate(accuracies[k]) for k in sizes}, slope)
