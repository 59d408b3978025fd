"""Means, intervals and paired tests; scipy is imported where it is used, since it takes its time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


EXACT_PAIRS = 50  # as in scipy
DIGITS = 12  # differences of fractions that are equal on paper differ behind these


@dataclass(frozen=True)
class Estimate:
    """A mean, and half the width of its 95% interval; None where nothing is known of the spread."""

    mean: float
    half_width: float | None = None


@dataclass(frozen=True)
class PairedTest:
    """A paired test: p value, and number of pairs with and without a difference."""

    p_value: float
    pairs: int
    ties: int


def _half_width(squared_error: float, freedom: float) -> float:
    from scipy.special import stdtrit  # scipy.stats.t.ppf gives the same, a hundred times as slowly

    return float(stdtrit(freedom, 0.975)) * math.sqrt(squared_error)


def _variance(values: Sequence[float]) -> float:
    middle = fmean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values with its interval by Student's t; without one for a single value."""
    if len(values) < 2:
        return Estimate(fmean(values))
    return Estimate(fmean(values), _half_width(_variance(values) / len(values), len(values) - 1))


def average(tasks: Sequence[Sequence[dict[int, float]]]) -> Estimate:
    r"""
    The mean over tasks and sizes, with the interval that the draws of support sets leave.

    The tasks are taken as they are: the interval says nothing about others. Support sets of a seed and task hold each
    other, so that the sizes of a task are averaged by seed before their spread is taken. Draws for different tasks are
    independent, with the degrees of freedom by Welch and Satterthwaite.

    Args:
        tasks (`list[list[dict[int, float]]]`):
            For each task, for each size, the values by seed.
    """
    middle = fmean(fmean(size.values()) for sizes in tasks for size in sizes)
    weights = [len(sizes) / sum(len(others) for others in tasks) for sizes in tasks]
    seeds = [sorted(set.intersection(*(set(size) for size in sizes))) for sizes in tasks]
    if min(map(len, seeds)) < 2:
        return Estimate(middle)
    errors = [
        weight**2 * _variance([fmean(size[seed] for size in sizes) for seed in shared]) / len(shared)
        for sizes, weight, shared in zip(tasks, weights, seeds, strict=True)
    ]
    total = sum(errors)
    if total == 0:
        return Estimate(middle, 0.0)
    freedom = total**2 / sum(error**2 / (len(shared) - 1) for error, shared in zip(errors, seeds, strict=True))
    return Estimate(middle, _half_width(total, freedom))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Wilcoxon's signed-rank test, two-sided; pairs without a difference are ranked and not counted (Pratt 1959).

    Up to 50 pairs it is exact, also where differences are alike; of more it is the normal approximation.
    """
    from scipy.stats import wilcoxon

    rounded = [round(difference, DIGITS) for difference in differences]
    ties = rounded.count(0.0)
    if ties == len(rounded):
        p_value = 1.0
    elif len(rounded) <= EXACT_PAIRS:
        p_value = _exact_p_value(rounded)
    else:
        p_value = float(wilcoxon(rounded, zero_method="pratt", method="asymptotic").pvalue)
    return PairedTest(p_value, len(rounded), ties)


def _exact_p_value(differences: Sequence[float]) -> float:
    """By the distribution of the sum of positive ranks over all signs.

    scipy leaves the exact test where ranks are alike, or spends seconds on it.
    """
    import numpy as np
    from scipy.stats import rankdata

    doubled = [int(rank) for rank in 2 * rankdata(np.abs(differences))]  # ranks that are alike end in a half
    ranked = [(rank, difference) for rank, difference in zip(doubled, differences, strict=True) if difference]
    ways = np.zeros(sum(rank for rank, _ in ranked) + 1)
    ways[0] = 1.0
    for rank, _ in ranked:
        ways[rank:] += ways[:-rank].copy()
    found = sum(rank for rank, difference in ranked if difference > 0)
    return min(1.0, 2 * float(min(ways[: found + 1].sum(), ways[found:].sum()) / ways.sum()))


def wins_ties_losses(differences: Sequence[float]) -> tuple[int, int, int]:
    """How many differences are above, at and below zero."""
    rounded = [round(difference, DIGITS) for difference in differences]
    return sum(d > 0 for d in rounded), rounded.count(0.0), sum(d < 0 for d in rounded)


__all__ = ["Estimate", "PairedTest", "average", "estimate", "paired_test", "wins_ties_losses"]
