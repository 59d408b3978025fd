"""The decomposition of arXiv 2306.07536 (section 3.1): is it the representation, or what is made of it?

With the same examples, fine-tuning beats prompting by

    performance gap = (fine-tuning - linear probe) + (linear probe - prompting).

The first part is the representation gap, what a better representation would bring; the second the reasoning gap, what
a better use of the same representation would bring. TART is meant to close the second.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch

from transformers_tart.evaluation.diagnosis.regret import seen_log_loss
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.metrics import accuracy
from transformers_tart.evaluation.report.statistics import Estimate, estimate


FINE_TUNING, PROMPTING, PROBE, TART = "fine_tune", "prompting", "logistic_regression", "tart"


@dataclass(frozen=True)
class Outcome:
    """A method on every support set: accuracies in points, and log losses in nats among classes with an example."""

    accuracies: tuple[float, ...]
    log_losses: tuple[float, ...]


@dataclass(frozen=True)
class Gaps:
    """Accuracies and their differences in points, with 95% intervals over the support sets.

    Attributes:
        accuracies: by method, of those that could be measured.
        missing: why others could not.
        performance: fine-tuning minus prompting.
        representation: fine-tuning minus linear probe.
        reasoning: linear probe minus prompting.
        remaining: linear probe minus TART.
        closed: share of the reasoning gap that TART closes; `None` unless the interval of that gap is above 0.
    """

    accuracies: dict[str, Estimate]
    missing: dict[str, str]
    performance: Estimate | None
    representation: Estimate | None
    reasoning: Estimate | None
    remaining: Estimate | None
    closed: Estimate | None


def measure_methods(
    context: TaskContext,
    supports: Sequence[Support],
    methods: Mapping[str, Method],
    progress: Callable[[str], None],
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Outcomes by name, and why there is none: TART and the probe must work, the others may not."""
    truth = torch.tensor(context.task.test_labels)
    found: dict[str, Outcome] = {}
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
            continue
        found[name] = Outcome(tuple(accuracies), tuple(losses))
    return found, missing


def decompose(found: Mapping[str, Outcome], missing: Mapping[str, str]) -> Gaps:
    """The gaps, of outcomes on the same support sets in the same order."""
    reasoning = _difference(found, PROBE, PROMPTING)
    closed = None
    if reasoning is not None and reasoning.half_width is not None and reasoning.mean > reasoning.half_width:
        gains = _paired(found, TART, PROMPTING)
        closed = ratio(gains, _paired(found, PROBE, PROMPTING))
    return Gaps(
        accuracies={name: estimate(outcome.accuracies) for name, outcome in found.items()},
        missing=dict(missing),
        performance=_difference(found, FINE_TUNING, PROMPTING),
        representation=_difference(found, FINE_TUNING, PROBE),
        reasoning=reasoning,
        remaining=_difference(found, PROBE, TART),
        closed=closed,
    )


def _paired(found: Mapping[str, Outcome], first: str, second: str) -> list[float]:
    both = zip(found[first].accuracies, found[second].accuracies, strict=True)
    return [a - b for a, b in both]


def _difference(found: Mapping[str, Outcome], first: str, second: str) -> Estimate | None:
    return estimate(_paired(found, first, second)) if first in found and second in found else None


def ratio(parts: Sequence[float], wholes: Sequence[float]) -> Estimate:
    """Mean of the parts over the mean of the wholes, with the interval of the ratio estimator (Cochran 1977,
    section 2.11)."""
    share = mean(parts) / mean(wholes)
    residuals = estimate([part - share * whole for part, whole in zip(parts, wholes, strict=True)])
    spread = None if residuals.half_width is None else residuals.half_width / math.fabs(mean(wholes))
    return Estimate(share, spread)


__all__ = ["FINE_TUNING", "PROBE", "PROMPTING", "TART", "Gaps", "Outcome", "decompose", "measure_methods", "ratio"]
