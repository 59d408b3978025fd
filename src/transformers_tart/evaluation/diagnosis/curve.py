"""Accuracy by the number of examples: is it worth labeling more?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from transformers_tart.evaluation.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class LearningCurve:
    """TART's accuracy in points at several sizes of the same, nested support sets.

    Attributes:
        accuracies: by k.
        slope: points for twice as many examples, by least squares on the logarithm of k; `None` of a single k.
    """

    accuracies: dict[int, Estimate]
    slope: Estimate | None


def curve_sizes(k: int, num_classes: int) -> list[int]:
    """A quarter of k, half of it and k; without sizes at which a class would have no example."""
    return [size for size in sorted({k // 4, k // 2, k}) if size == k or size >= max(2, num_classes)]


def fit_curve(accuracies: Mapping[int, Sequence[float]]) -> LearningCurve:
    """Of accuracies in points by k, those of every k in the same order of seeds."""
    sizes = sorted(accuracies)
    slopes = None
    if len(sizes) > 1:
        by_seed = zip(*(accuracies[k] for k in sizes), strict=True)
        slopes = estimate([_slope([math.log2(k) for k in sizes], values) for values in by_seed])
    return LearningCurve({k: estimate(accuracies[k]) for k in sizes}, slopes)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    middle = mean(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


__all__ = ["LearningCurve", "curve_sizes", "fit_curve"]
