"""What a distance from the training distribution says of the reasoner's regret, as far as synthetic tasks show it.

Regret: log loss of the reasoner minus that of the better of two usual classifiers on the same task, logistic
regression and kernel ridge, the better one by the log loss itself. Below 0, the reasoner is the best of the three.
Queries of a class without an example are left out: both rivals give them probability 0, for which no log loss is fair.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.evaluation.diagnosis.episodes import Episode
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.metrics import SMALLEST, log_loss
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


LINEAR = "logistic_regression"
RIVALS = (LINEAR, "kernel_ridge")
EPISODES, PAIRS = 16, 2**20  # read at once, and pairs of examples in them
BAND = (0.1, 0.5, 0.9)
LEAST_NEIGHBORS, NEIGHBORS = 20, 0.25  # tasks of about the same distance: at least so many, and this share


@dataclass(frozen=True)
class Relation:
    """Spearman's rank correlation of distance and regret over tasks, with its 95% interval."""

    tasks: int
    correlation: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class RegretPrediction:
    """What the synthetic tasks say of a task at its distance.

    Attributes:
        inside: relation among new tasks of the training distribution.
        moved: relation among tasks that were moved away from it.
        neighbors: number of tasks that lie about as far as the real one; 0: none does, nothing is predicted.
        low: of the regret of these, 10% quantile.
        middle: their median.
        high: their 90% quantile.
    """

    inside: Relation
    moved: Relation
    neighbors: int
    low: float | None = None
    middle: float | None = None
    high: float | None = None


def seen_log_loss(probabilities: Tensor, truth: Tensor, labels: Tensor) -> float:
    r"""
    Log loss among the classes that have an example: of their queries, with probabilities that sum to 1 over them.

    Args:
        probabilities (`torch.DoubleTensor` of shape `(n, num_classes)`):
            Of the queries.
        truth (`torch.LongTensor` of shape `(n,)`):
            Labels of the queries.
        labels (`torch.LongTensor` of shape `(k,)`):
            Those of the examples.

    Raises:
        ValueError: When no query is of such a class.
    """
    seen = labels.unique()
    rows = torch.isin(truth, seen)
    if not rows.any():
        raise ValueError("No query is of a class that has an example; take more examples, or more queries.")
    among = probabilities[rows][:, seen]
    among = among / among.sum(1, keepdim=True).clamp_min(SMALLEST)
    return log_loss(among, torch.searchsorted(seen, truth[rows]))


def reasoner_losses(
    reasoner: TartReasoner, episodes: Sequence[Episode], progress: Callable[[], None] | None = None
) -> list[float]:
    """Log loss of the reasoner on each synthetic episode; its projection is left out, as in training."""
    losses: list[float] = []
    size = max(1, min(EPISODES, PAIRS // len(episodes[0].support) ** 2))
    for start in range(0, len(episodes), size):
        some = episodes[start : start + size]
        width = max(episode.support.shape[1] for episode in some)
        support, query = (_stack([getattr(e, part) for e in some], width) for part in ("support", "query"))
        labels = torch.stack([episode.labels for episode in some])
        with torch.inference_mode():
            given = [tensor.to(reasoner.device) for tensor in (support, labels, query)]
            state = reasoner.architecture.prepare(given[0], given[1], some[0].num_classes)
            logits = reasoner.architecture.query(state, given[2]).cpu().double()
        losses += [seen_log_loss(one.softmax(-1), _truth(e), e.labels) for one, e in zip(logits, some, strict=True)]
        if progress is not None:
            progress()
    return losses


def _stack(rows: Sequence[Tensor], width: int) -> Tensor:
    """One above the other, zero-padded to a width, which no kernel sees."""
    return torch.stack([torch.nn.functional.pad(x.float(), (0, width - x.shape[1])) for x in rows])


def _truth(episode: Episode) -> Tensor:
    if episode.truth is None:
        raise ValueError("The queries of an episode have no labels; regret needs them.")
    return episode.truth


def best_rival(episode: Episode) -> float:
    """The lower log loss of logistic regression and kernel ridge."""
    support, query = episode.support, episode.query
    losses = []
    for name in RIVALS:
        rows = _in_span(support, query) if name == LINEAR else (support, query)
        found = BASELINES[name](rows[0], episode.labels, rows[1], episode.num_classes)
        losses.append(seen_log_loss(found, _truth(episode), episode.labels))
    return min(losses)


def _in_span(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates in the span of the support set, in which the weights of a linear classifier lie (representer
    theorem): the same answers from fewer numbers."""
    if support.shape[1] <= len(support):
        return support, query
    basis = torch.linalg.qr(support.T.double()).Q
    return support.double() @ basis, query.double() @ basis


def measure_regrets(
    reasoner: TartReasoner, episodes: Sequence[Episode], progress: Callable[[], None] | None = None
) -> list[float]:
    """Regret of the reasoner on each synthetic episode, in nats."""
    losses = reasoner_losses(reasoner, episodes, progress)
    regrets = []
    for number, (loss, episode) in enumerate(zip(losses, episodes, strict=True)):
        regrets.append(loss - best_rival(episode))
        if progress is not None and number % EPISODES == 0:
            progress()
    return regrets


def relate(distances: Sequence[float], regrets: Sequence[float]) -> Relation:
    """Rank correlation, with the interval of Bonett and Wright 2000 (Psychometrika 65)."""
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
    r"""
    The regret of synthetic tasks that lie about as far from the training distribution.

    Args:
        distance (`float`):
            Of the real task.
        inside (`tuple[list[float], list[float]]`):
            Distances and regrets of new tasks of the training distribution.
        moved (`tuple[list[float], list[float]]`):
            Those of tasks that were moved away from it.
    """
    relations = relate(*inside), relate(*moved)
    distances = torch.tensor([*inside[0], *moved[0]], dtype=torch.float64)
    regrets = torch.tensor([*inside[1], *moved[1]], dtype=torch.float64)
    if distance > distances.max():
        return RegretPrediction(*relations, neighbors=0)
    count = min(len(distances), max(LEAST_NEIGHBORS, round(NEIGHBORS * len(distances))))
    nearest = (distances.log() - math.log(distance)).abs().argsort()[:count]
    low, middle, high = regrets[nearest].quantile(torch.tensor(BAND, dtype=torch.float64)).tolist()
    return RegretPrediction(*relations, count, low, middle, high)


__all__ = [
    "RIVALS",
    "RegretPrediction",
    "Relation",
    "best_rival",
    "measure_regrets",
    "predict_regret",
    "relate",
    "seen_log_loss",
]
