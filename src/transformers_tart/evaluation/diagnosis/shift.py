"""How far a task lies from what the reasoner was trained on.

The error of a reasoner on a task is bounded by its error in training and the Wasserstein distance between the two
distributions of inputs (arXiv 2306.07536, section on generalization). The bound has constants nobody knows; what is
reported instead is where the distance stands among those of new tasks from the training distribution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import torch
from torch import Generator

from transformers_tart.evaluation.diagnosis.episodes import Episode
from transformers_tart.evaluation.diagnosis.features import View
from transformers_tart.evaluation.diagnosis.wasserstein import Distances, Reference
from transformers_tart.evaluation.report.statistics import Estimate, estimate


OUTSIDE = 95.0  # from this percentile on: one in twenty tasks of the training distribution is called so
SHOWN_FEATURES = 4


@dataclass(frozen=True)
class FeatureShift:
    """A feature in which a task differs.

    Attributes:
        name: of the feature.
        distance: in standard deviations of the training distribution.
        percentile: among new tasks of that distribution.
        is_higher: whether its mean is above that of the training distribution.
    """

    name: str
    distance: float
    percentile: float
    is_higher: bool


@dataclass(frozen=True)
class Shift:
    """Distances of a task from the training distribution, and their percentiles among new tasks of it.

    Attributes:
        compared: what is compared.
        tasks: number of the new tasks.
        distance: sliced Wasserstein, over the support sets.
        percentile: its median over the support sets, 0 to 100.
        largest: along the direction in which most differs, of those tried.
        largest_percentile: likewise.
        features: those that differ most, by percentile and distance.
    """

    compared: str
    tasks: int
    distance: Estimate
    percentile: float
    largest: Estimate
    largest_percentile: float
    features: tuple[FeatureShift, ...]

    @property
    def is_outside(self) -> bool:
        """Whether 95% of the new tasks of the training distribution are nearer."""
        return self.percentile >= OUTSIDE


def fit_reference(view: View, episodes: Sequence[Episode], generator: Generator) -> Reference:
    """Of all examples and queries of synthetic tasks."""
    return Reference.fit(torch.cat([view.points(episode) for episode in episodes]), generator)


def percentile(value: float, values: Sequence[float]) -> float:
    """Share of the values that are below, in %."""
    return 100 * mean(other < value for other in values)


def compare(view: View, found: Sequence[Distances], fresh: Sequence[Distances]) -> Shift:
    """Distances of a task, one of each support set, among those of new tasks of the training distribution."""
    sliced, largest = [d.sliced for d in fresh], [d.largest for d in fresh]
    features = [
        FeatureShift(
            name,
            mean(d.features[i].item() for d in found),
            median(percentile(d.features[i].item(), [f.features[i].item() for f in fresh]) for d in found),
            mean(d.means[i].item() for d in found) > 0,
        )
        for i, name in enumerate(view.features)
    ]
    features.sort(key=lambda feature: (feature.percentile, feature.distance), reverse=True)
    return Shift(
        compared=view.summary,
        tasks=len(fresh),
        distance=estimate([d.sliced for d in found]),
        percentile=median(percentile(d.sliced, sliced) for d in found),
        largest=estimate([d.largest for d in found]),
        largest_percentile=median(percentile(d.largest, largest) for d in found),
        features=tuple(features[:SHOWN_FEATURES]),
    )


__all__ = ["OUTSIDE", "FeatureShift", "Shift", "compare", "fit_reference", "percentile"]
