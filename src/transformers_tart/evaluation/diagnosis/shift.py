"""The distance of a task from the synthetic tasks that the reasoner was trained on.

The error of a reasoner on a task is at most its training error plus the Wasserstein distance between the two
distributions of inputs, up to unknown constants (arXiv 2306.07536, section on generalization). Distances are therefore
reported as percentiles among those of new training tasks. They are sliced 2-Wasserstein distances: Bonneel, Rabin,
Peyré and Pfister 2015, "Sliced and Radon Wasserstein barycenters of measures"; max-sliced: arXiv 1904.05877.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from transformers_tart.evaluation.diagnosis.features import (
    MOVES,
    Episode,
    FeatureSet,
    Shape,
    choose_features,
    draw_episodes,
)
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.metrics import log_loss
from transformers_tart.evaluation.report.statistics import Estimate, estimate
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.priors.draws import choose


LINEAR = "logistic_regression"
RIVALS = (LINEAR, "kernel_ridge")
BAND = (0.1, 0.5, 0.9)
WEAK, STRONG = 0.3, 0.6  # correlations below and from which a relation is called so
MIN_NEIGHBORS, NEIGHBORS = 20, 0.25  # tasks of a similar distance: at least so many, and this share
OUTSIDE = 95.0  # percentile from which a task is outside: one in twenty training tasks is
MIN_TASKS = 20
SHOWN_FEATURES = 4
NUM_DIRECTIONS = 64
MAX_POINTS = 20_000  # of a reference
SMALLEST_SPREAD = 1e-6  # standard deviation of a feature that is constant in the reference
SLICED, LARGEST = 0, 1  # columns of distances; those of the features follow


@dataclass(frozen=True)
class Relation:
    """Spearman's rank correlation of distance and regret over tasks, with its 95% interval."""

    tasks: int
    correlation: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """`True` if the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def strength(self) -> str:
        """Strength of the correlation in words."""
        size = abs(self.correlation)
        return "weak" if size < WEAK else "strong" if size >= STRONG else "moderate"


@dataclass(frozen=True)
class RegretPrediction:
    """The regret of synthetic tasks at the distance of a real one: its 10%, 50% and 90% quantiles."""

    inside: Relation  # among new training tasks
    moved: Relation  # among tasks that were moved away from the training distribution
    neighbors: int  # number of tasks at a similar distance; 0 when the real task is farther than all of them
    low: float | None = None
    middle: float | None = None
    high: float | None = None


def seen_log_loss(probabilities: Tensor, truth: Tensor, labels: Tensor) -> float:
    """Compute the log loss of probabilities (n, classes), renormalized to the classes of the examples' labels (k,), on
    the queries whose true class is among them.
    """
    seen = labels.unique()
    rows = torch.isin(truth, seen)
    if not rows.any():
        raise ValueError("No query is of a class that has an example; take more examples, or more queries.")
    among = normalize(probabilities[rows][:, seen], p=1, dim=1)
    return log_loss(among, torch.searchsorted(seen, truth[rows]))


def reasoner_loss(reasoner: TartReasoner, episode: Episode) -> float:
    """Compute the reasoner's log loss on a synthetic episode, without its projection, as in training."""
    rows = (episode.support.float(), episode.labels, episode.query.float())
    support, labels, query = (part[None].to(reasoner.device) for part in rows)
    with torch.inference_mode():
        state = reasoner.architecture.prepare(support, labels, episode.num_classes)
        found = reasoner.architecture.query(state, query)[0].cpu().double().softmax(-1)
    return _episode_loss(episode, found)


def _episode_loss(episode: Episode, probabilities: Tensor) -> float:
    if episode.truth is None:
        raise ValueError("The queries of an episode have no labels; regret needs them.")
    return seen_log_loss(probabilities, episode.truth, episode.labels)


def best_rival(episode: Episode) -> float:
    """Compute the lower log loss of logistic regression and kernel ridge."""
    losses = []
    for name in RIVALS:
        support, query = episode.support, episode.query
        if name == LINEAR and support.shape[1] > len(support):
            # the weights lie in the span of the support set: same predictions from fewer numbers
            basis = torch.linalg.qr(support.T.double()).Q
            support, query = support.double() @ basis, query.double() @ basis
        found = BASELINES[name](support, episode.labels, query, episode.num_classes)
        losses.append(_episode_loss(episode, found))
    return min(losses)


def relate(distances: Sequence[float], regrets: Sequence[float]) -> Relation:
    """Compute the rank correlation with the interval of Bonett and Wright 2000 (Psychometrika 65)."""
    from scipy.stats import spearmanr

    count = len(distances)
    if min(len(set(distances)), len(set(regrets))) < 2:
        return Relation(count, 0.0, -1.0, 1.0)
    found = float(spearmanr(distances, regrets).statistic)
    middle = math.atanh(max(-0.999, min(0.999, found)))
    half = 1.96 * math.sqrt((1 + found**2 / 2) / (count - 3))
    return Relation(count, found, math.tanh(middle - half), math.tanh(middle + half))


def predict_regret(
    distance: float, inside: tuple[Sequence[float], Sequence[float]], moved: tuple[Sequence[float], Sequence[float]]
) -> RegretPrediction:
    """Predict the regret at a distance from the distances and regrets of synthetic tasks, new ones and moved ones."""
    relations = relate(*inside), relate(*moved)
    distances = torch.tensor([*inside[0], *moved[0]], dtype=torch.float64)
    regrets = torch.tensor([*inside[1], *moved[1]], dtype=torch.float64)
    if distance > distances.max():
        return RegretPrediction(*relations, neighbors=0)
    count = min(len(distances), max(MIN_NEIGHBORS, round(NEIGHBORS * len(distances))))
    nearest = (distances.log() - math.log(distance)).abs().argsort()[:count]
    return RegretPrediction(*relations, count, *regrets[nearest].quantile(regrets.new_tensor(BAND)).tolist())


@dataclass(frozen=True)
class FeatureShift:
    """The shift of a feature."""

    name: str
    distance: float  # in standard deviations of the training distribution
    percentile: float  # among new training tasks
    is_higher: bool

    @property
    def description(self) -> str:
        """Name with the direction in which the mean is shifted."""
        return f"{'higher' if self.is_higher else 'lower'} {self.name}"


@dataclass(frozen=True)
class Shift:
    """Distances of a task from the training distribution, and their percentiles among new training tasks."""

    compared: str  # description of the features
    tasks: int  # number of new training tasks
    distance: Estimate  # sliced Wasserstein distance, over the support sets
    percentile: float  # median over the support sets, 0 to 100
    largest: Estimate  # largest distance along a direction
    largest_percentile: float  # median over the support sets
    features: tuple[FeatureShift, ...]  # the most shifted features, by percentile and distance

    @property
    def is_outside(self) -> bool:
        """`True` if 95% of the new training tasks are nearer."""
        return self.percentile >= OUTSIDE


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Compute squared 2-Wasserstein distances (p,) between the sorted columns of x (n, p) and y (m, p)."""
    # the integral of the squared difference of the quantile functions, constant between multiples of 1/n and of 1/m
    n, m = len(x), len(y)
    steps = torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]).unique()
    weights = (steps[1:] - steps[:-1]).to(x.dtype) / (n * m)
    return weights @ (x[steps[:-1] // m] - y[steps[:-1] // n]).square()


@dataclass(frozen=True)
class Reference:
    """A point set from which others are measured, in units of its standard deviation of each feature."""

    mean: Tensor  # (d,)
    spread: Tensor  # (d,) standard deviations
    directions: Tensor  # (directions, d), of which the last d are the axes
    slices: Tensor  # (n, directions) sorted projections

    @classmethod
    def fit(cls, points: Tensor, generator: Generator, num_directions: int = NUM_DIRECTIONS) -> "Reference":
        """Build a reference from points (n, d), of which at most `MAX_POINTS` are drawn."""
        if len(points) > MAX_POINTS:
            points = points[torch.randperm(len(points), generator=generator)[:MAX_POINTS]]
        points = points.double()
        mean, spread = points.mean(0), points.std(0, correction=0).clamp_min(SMALLEST_SPREAD)
        drawn = torch.randn(num_directions, points.shape[1], generator=generator, dtype=torch.float64)
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
        directions = torch.cat([drawn, torch.eye(points.shape[1], dtype=torch.float64)])
        return cls(mean, spread, directions, ((points - mean) / spread @ directions.T).sort(dim=0).values)

    def measure(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (2 + d,) distances of points (m, d): sliced (times the root of d, so that a translation has its
        length), largest along a direction, of each feature; and the (d,) signed differences of the means.
        """
        dim = len(self.mean)
        scaled = (points.double() - self.mean) / self.spread
        squared = squared_wasserstein((scaled @ self.directions.T).sort(dim=0).values, self.slices)
        sliced = dim * squared[:-dim].mean()
        return torch.cat([sliced[None], squared.max()[None], squared[-dim:]]).sqrt(), scaled.mean(0)


@dataclass(frozen=True)
class SyntheticTasks:
    """Synthetic tasks to compare a real task with, by their distances (tasks, 2 + d) and the reasoner's regrets."""

    features: FeatureSet
    reference: Reference  # points of training tasks
    fresh: Tensor  # further training tasks
    fresh_regrets: list[float]
    moved: Tensor  # tasks that were moved away from the training distribution
    moved_regrets: list[float]

    def measure(self, episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
        """Measure a support set, averaged over the episodes that it is read as."""
        distances, means = zip(*(self.reference.measure(self.features.points(e)) for e in episodes), strict=True)
        return torch.stack(distances).mean(0), torch.stack(means).mean(0)

    def compare(self, measured: Sequence[tuple[Tensor, Tensor]]) -> Shift:
        """Compare a task, measured on each of its support sets, with the new training tasks."""
        found, means = (torch.stack(part) for part in zip(*measured, strict=True))
        percentiles = (100 * (self.fresh < found[:, None]).double().mean(1)).quantile(0.5, dim=0).tolist()
        sizes, is_higher = found.mean(0).tolist(), (means.mean(0) > 0).tolist()
        rows = zip(self.features.names, sizes[2:], percentiles[2:], is_higher, strict=True)
        features = sorted((FeatureShift(*row) for row in rows), key=lambda f: (f.percentile, f.distance), reverse=True)
        return Shift(
            compared=self.features.summary,
            tasks=len(self.fresh),
            distance=estimate(found[:, SLICED].tolist()),
            percentile=percentiles[SLICED],
            largest=estimate(found[:, LARGEST].tolist()),
            largest_percentile=percentiles[LARGEST],
            features=tuple(features[:SHOWN_FEATURES]),
        )

    def predict_regret(self, distance: float) -> RegretPrediction:
        """Predict the regret of a task at a distance."""
        fresh, moved = self.fresh[:, SLICED].tolist(), self.moved[:, SLICED].tolist()
        return predict_regret(distance, (fresh, self.fresh_regrets), (moved, self.moved_regrets))


def measure_synthetic(
    reasoner: TartReasoner, shape: Shape, count: int, seed: int, progress: Callable[[], None] = lambda: None
) -> SyntheticTasks:
    """Draw synthetic tasks, `count` each for the reference, fresh and moved, and measure the reasoner on them."""
    if count < MIN_TASKS:
        raise ValueError(f"The number of synthetic tasks is {count}; it must be at least {MIN_TASKS}.")
    generator = torch.Generator().manual_seed(seed)
    features = choose_features(reasoner.config)
    training = draw_episodes(reasoner, shape, count, generator)
    reference = Reference.fit(torch.cat([features.points(episode) for episode in training]), generator)
    fresh = draw_episodes(reasoner, shape, count, generator)
    drawn = draw_episodes(reasoner, shape, count, generator)
    moved = [choose(MOVES, generator)(episode, generator) for episode in drawn]

    def measure(episodes: Sequence[Episode]) -> tuple[Tensor, list[float]]:
        distances, regrets = [], []
        for episode in episodes:
            distances.append(reference.measure(features.points(episode))[0])
            regrets.append(reasoner_loss(reasoner, episode) - best_rival(episode))
            progress()
        return torch.stack(distances), regrets

    return SyntheticTasks(features, reference, *measure(fresh), *measure(moved))
