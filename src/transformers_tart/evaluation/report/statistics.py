"""Means with 95% intervals, and paired tests; scipy is imported on use because its import is slow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance


MIN_DRAWS = 3  # of support sets, for an interval in a report; that of two is 13 standard errors wide on each side
EXACT_PAIRS = 50  # as in scipy
DIGITS = 12  # rounding errors are smaller


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its 95% interval, `None` where the spread is unknown."""

    mean: float
    half_width: float | None = None

    @property
    def low(self) -> float:
        """Lower end of the interval; minus infinity where the spread is unknown."""
        return self.mean - (math.inf if self.half_width is None else self.half_width)

    @property
    def high(self) -> float:
        """Upper end of the interval; infinity where the spread is unknown."""
        return -(-self).low

    def __neg__(self) -> "Estimate":
        return Estimate(-self.mean, self.half_width)

    def format(self, factor: float = 1.0, digits: int = 1, signed: bool = False) -> str:
        """Return the mean and its interval, times a factor."""
        spread = "" if self.half_width is None else f" ± {factor * self.half_width:.{digits}f}"
        return f"{factor * self.mean:{'+' if signed else ''}z.{digits}f}{spread}"


@dataclass(frozen=True)
class PairedTest:
    """The p value of a paired test, the number of pairs, and how many of them do not differ."""

    p_value: float
    pairs: int
    ties: int


def _half_width(squared_error: float, freedom: float) -> float:
    from scipy.special import stdtrit  # 100 times as fast as scipy.stats.t.ppf

    return float(stdtrit(freedom, 0.975)) * math.sqrt(squared_error)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values with its interval by Student's t, which a single value lacks."""
    if len(values) < 2:
        return Estimate(fmean(values))
    return Estimate(fmean(values), _half_width(variance(values) / len(values), len(values) - 1))


def average(tasks: Sequence[dict[int, float]]) -> Estimate:
    """Return the mean over tasks of values by seed, with the interval over draws of support sets from three on.

    The tasks are taken as fixed. Draws for different tasks are independent; the degrees of freedom are those of Welch
    and Satterthwaite.
    """
    mean = fmean(fmean(task.values()) for task in tasks)
    if min(map(len, tasks)) < MIN_DRAWS:
        return Estimate(mean)
    errors = [variance(task.values()) / len(task) / len(tasks) ** 2 for task in tasks]
    total = sum(errors)
    if total == 0:
        return Estimate(mean, 0.0)
    freedom = total**2 / sum(error**2 / (len(task) - 1) for error, task in zip(errors, tasks, strict=True))
    return Estimate(mean, _half_width(total, freedom))


def paired_test(differences: Sequence[float]) -> PairedTest:
    """Run Wilcoxon's signed-rank test, two-sided; pairs that do not differ are ranked but not counted (Pratt 1959).

    Up to 50 pairs the test is exact, also with ties; beyond, it uses the normal approximation.
    """
    from scipy.stats import wilcoxon

    rounded = [round(difference, DIGITS) for difference in differences]
    ties = rounded.count(0.0)
    if len(rounded) <= EXACT_PAIRS or ties == len(rounded):
        p_value = _exact_p_value(rounded)
    else:
        p_value = float(wilcoxon(rounded, zero_method="pratt", method="asymptotic").pvalue)
    return PairedTest(p_value, len(rounded), ties)


def _exact_p_value(differences: Sequence[float]) -> float:
    """Compare the sum of positive ranks with its distribution over all signs; scipy's exact test excludes ties."""
    import numpy as np
    from scipy.stats import rankdata

    doubled = (2 * rankdata(np.abs(differences))).astype(int)  # tied ranks may end in .5
    ranked = [(rank, difference) for rank, difference in zip(doubled, differences, strict=True) if difference]
    counts = np.zeros(sum(rank for rank, _ in ranked) + 1)
    counts[0] = 1.0
    for rank, _ in ranked:
        counts[rank:] += counts[:-rank].copy()
    found = sum(rank for rank, difference in ranked if difference > 0)
    return min(1.0, 2 * float(min(counts[: found + 1].sum(), counts[found:].sum()) / counts.sum()))


def wins_ties_losses(differences: Sequence[float]) -> tuple[int, int, int]:
    """Count the differences above, at and below zero."""
    rounded = [round(difference, DIGITS) for difference in differences]
    return sum(d > 0 for d in rounded), rounded.count(0.0), sum(d < 0 for d in rounded)
