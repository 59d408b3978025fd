"""The synthetic side of a diagnosis: tasks of the training distribution, new ones beside them, and moved ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from transformers_tart.evaluation.diagnosis.episodes import Episode, Shape, draw_episodes, move_episodes
from transformers_tart.evaluation.diagnosis.features import View, view_of
from transformers_tart.evaluation.diagnosis.regret import RegretPrediction, measure_regrets, predict_regret
from transformers_tart.evaluation.diagnosis.shift import Shift, compare, fit_reference
from transformers_tart.evaluation.diagnosis.wasserstein import Distances, Reference
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


LEAST_TASKS = 20


@dataclass(frozen=True)
class SyntheticTasks:
    """What a real task is held against.

    Attributes:
        shape: of all tasks.
        view: what the reasoner sees.
        reference: all points of as many tasks of the training distribution.
        fresh: distances of further tasks of it.
        fresh_regrets: of the reasoner on these.
        moved: distances of tasks that were moved away from it.
        moved_regrets: of the reasoner on these.
    """

    shape: Shape
    view: View
    reference: Reference
    fresh: tuple[Distances, ...]
    fresh_regrets: tuple[float, ...]
    moved: tuple[Distances, ...]
    moved_regrets: tuple[float, ...]

    def compare(self, found: Sequence[Distances]) -> Shift:
        """Where a task stands, by the distance of each of its support sets."""
        return compare(self.view, found, self.fresh)

    def predict_regret(self, distance: float) -> RegretPrediction:
        """What the regrets of these tasks say of a task at a distance."""
        inside = [d.sliced for d in self.fresh], self.fresh_regrets
        return predict_regret(distance, inside, ([d.sliced for d in self.moved], self.moved_regrets))

    def measure(self, episodes: Sequence[Episode]) -> Distances:
        """Distances of one support set, averaged where it is read as several tasks."""
        found = [self.reference.measure(self.view.points(episode)) for episode in episodes]
        sliced, largest = (sum(getattr(d, name) for d in found) / len(found) for name in ("sliced", "largest"))
        features, means = (torch.stack([getattr(d, name) for d in found]).mean(0) for name in ("features", "means"))
        return Distances(sliced, largest, features, means)


def measure_synthetic(
    reasoner: TartReasoner, shape: Shape, count: int, seed: int, progress: Callable[[], None] | None = None
) -> SyntheticTasks:
    r"""
    Draw synthetic tasks and measure the reasoner on them.

    Args:
        reasoner ([`TartReasoner`]):
            The reasoner.
        shape ([`Shape`]):
            Of every task.
        count (`int`):
            Tasks of each kind: for the reference, new ones, and moved ones.
        seed (`int`):
            Of all draws.
        progress (`Callable[[], None]`, *optional*):
            Called now and then.

    Raises:
        ValueError: On fewer than 20 tasks, and on an architecture without synthetic tasks.
    """
    if count < LEAST_TASKS:
        raise ValueError(f"The number of synthetic tasks is {count}; fewer than {LEAST_TASKS} say nothing.")
    generator = torch.Generator().manual_seed(seed)
    view = view_of(reasoner.config)
    reference = fit_reference(view, draw_episodes(reasoner, shape, count, generator), generator)
    fresh = draw_episodes(reasoner, shape, count, generator)
    moved = move_episodes(draw_episodes(reasoner, shape, count, generator), generator)
    distances = [tuple(reference.measure(view.points(episode)) for episode in some) for some in (fresh, moved)]
    regrets = [tuple(measure_regrets(reasoner, some, progress)) for some in (fresh, moved)]
    return SyntheticTasks(shape, view, reference, distances[0], regrets[0], distances[1], regrets[1])


__all__ = ["LEAST_TASKS", "SyntheticTasks", "measure_synthetic"]
