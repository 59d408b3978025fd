"""The reasoner's regret on synthetic tasks, and its relation to their distance from the training distribution.

Regret is the reasoner's log loss minus the lower one of logistic regression and kernel ridge on the same task. Below
0, the reasoner is the best of the three. Queries of a class without an example are left out, since both rivals give
that class probability 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from transformers_tart.evaluation.diagnosis.episodes import Episode
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.metrics import log_loss
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


LINEAR = "logistic_regression"
RIVALS = (LINEAR, "kernel_ridge")
BAND = (0.1, 0.5, 0.9)
WEAK, STRONG = 0.3, 0.6  # correlations below and from which a relation is called so
MIN_NEIGHBORS, NEIGHBORS = 20, 0.25  # tasks of a similar distance: at least so many, and this share


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


def measure_regret(reasoner: TartReasoner, episode: Episode) -> float:
    """Compute the reasoner's regret on a synthetic episode, in nats."""
    return reasoner_loss(reasoner, episode) - best_rival(episode)


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
    distance: float,
    inside: tuple[Sequence[float], Sequence[float]],
    moved: tuple[Sequence[float], Sequence[float]],
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
