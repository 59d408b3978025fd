"""Synthetic episodes as in training or moved away, and features of an episode: a row for each example and query.

The `kernel` architecture reads only inner products and distances, centered and scaled by the support set. Its features
are functions of these, so they do not change when embeddings are rotated and are comparable across dimensions. The
`gpt2` architecture reads the components themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.reasoners.architectures.smoothers import Geometry, Smoothers, half_squared_distances, smooth
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.priors.draws import log_uniform, uniform
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, draw_batch


QUERIES = RichTasks.query_size
LEVELS = (0.0, 0.1, 0.5, 0.9, 1.0)  # quantiles of an example's distances and inner products
SMALLEST = 1e-9
LEADING = 1 / 8  # share of the support set's directions that count as leading
ROW_FEATURES = (
    "norm",
    "distance to the nearest example",
    "10% quantile of the distances",
    "median distance",
    "90% quantile of the distances",
    "smallest inner product",
    "10% quantile of the inner products",
    "90% quantile of the inner products",
    "largest inner product",
    "held-out margin",
)
EPISODE_FEATURES = (
    "participation ratio",
    "variance in the first direction",
    "variance in the leading eighth of directions",
    "spread of the norms",
    "size of the queries relative to the examples",
    "held-out error of the smoothers",
)


@dataclass(frozen=True)
class Episode:
    """A task as an architecture reads it, after the projection."""

    support: Tensor  # (k, dim) float32
    labels: Tensor  # (k,) int64
    query: Tensor  # (n, dim) float32
    num_classes: int
    truth: Tensor | None = None  # (n,) int64 labels of the queries, if known


@dataclass(frozen=True)
class Shape:
    """Sizes of an episode."""

    k: int
    queries: int
    classes: int


def rich_episode(reasoner: TartReasoner, shape: Shape, generator: Generator) -> Episode:
    """Draw a task of the rich prior, on which the `kernel` architecture is trained."""
    batch = draw_batch(1, shape.k, shape.queries, shape.classes, generator)
    return _split(batch.embeddings[0], batch.labels[0], shape)


def paper_episode(reasoner: TartReasoner, shape: Shape, generator: Generator) -> Episode:
    """Draw a task of arXiv 2306.07536 (section 4.1), on which the `gpt2` architecture is trained, at full width."""
    dim, length = reasoner.config.num_components, shape.k + shape.queries
    source = PaperTasks(Ramp(dim, dim, 0, 1), Ramp(length, length, 0, 1), dim=dim, batch_size=1)
    while True:
        batch = source.draw(0, generator)
        if (batch.labels[0, : shape.k] != batch.labels[0, 0]).any():
            return _split(batch.embeddings[0], batch.labels[0], shape)


def _split(embeddings: Tensor, labels: Tensor, shape: Shape) -> Episode:
    return Episode(embeddings[: shape.k], labels[: shape.k], embeddings[shape.k :], shape.classes, labels[shape.k :])


def draw_episodes(reasoner: TartReasoner, shape: Shape, count: int, generator: Generator) -> list[Episode]:
    """Draw synthetic tasks of the prior on which the reasoner's architecture is trained."""
    draw = _find(reasoner.config)[0]
    return [draw(reasoner, shape, generator) for _ in range(count)]


def move_queries(episode: Episode, generator: Generator) -> Episode:
    """Move all queries in one direction, by up to twice the spread of the support set."""
    centered = episode.support - episode.support.mean(0)
    direction = torch.randn(centered.shape[1], generator=generator)
    length = uniform(0.0, 2.0, generator) * centered.square().sum(1).mean().sqrt()
    return replace(episode, query=episode.query + direction / direction.norm() * length)


def scale_queries(episode: Episode, generator: Generator) -> Episode:
    """Scale the queries about the mean of the support set."""
    middle = episode.support.mean(0)
    return replace(episode, query=middle + (episode.query - middle) * log_uniform(0.3, 3.0, generator))


def scale_rows(episode: Episode, generator: Generator) -> Episode:
    """Scale every row by a random factor of its own."""
    level = uniform(0.0, 1.5, generator)
    both = (episode.support, episode.query)
    support, query = (rows * torch.exp(level * torch.randn(len(rows), 1, generator=generator)) for rows in both)
    return replace(episode, support=support, query=query)


def project_rows(episode: Episode, generator: Generator) -> Episode:
    """Project all rows to a random subspace of 1 to 64 dimensions."""
    dim = episode.support.shape[1]
    rank = min(int(2 ** uniform(0.0, 6.0, generator)), dim)
    basis = torch.linalg.qr(torch.randn(dim, rank, generator=generator)).Q
    return replace(episode, support=episode.support @ basis @ basis.T, query=episode.query @ basis @ basis.T)


# Moves away from the prior; the labels stay.
MOVES: dict[Callable[[Episode, Generator], Episode], float] = dict.fromkeys(
    (move_queries, scale_queries, scale_rows, project_rows), 1.0
)


@dataclass(frozen=True)
class FeatureSet:
    """Features of episodes."""

    summary: str  # for people
    names: tuple[str, ...]  # (d)
    points: Callable[[Episode], Tensor]  # from an episode to its features (k + n, d) float64, examples first


@dataclass(frozen=True)
class SupportStats:
    """Statistics that the features of the `kernel` architecture are computed from."""

    located: Tensor  # (k + n, dim) examples and queries in the units of the support set
    distances: Tensor  # (k + n, k)
    predictions: Tensor  # (k + n, C) means over the smoothers; an example's are held out
    error: float  # of the held-out predictions, relative to that of the class shares


def compute_stats(episode: Episode, config: TartReasonerConfig) -> SupportStats:
    """Fit the smoothers of the architecture to the support set."""
    geometry = Geometry.of(episode.support[None].float())
    near = half_squared_distances(geometry.support, geometry.support)
    near.diagonal(dim1=1, dim2=2).zero_()
    smoothers = Smoothers.fit(geometry, near, config.kernel_sharpness or (), config.ridge_strengths or ())
    members = torch.nn.functional.one_hot(episode.labels, episode.num_classes).float()
    targets = members - members.mean(0)
    targets = targets / targets.square().mean().sqrt().clamp_min(SMALLEST)
    solved, held_out = smoothers.solve(targets[None, :, None].expand(-1, -1, config.num_smoothers, -1))
    located = geometry.locate(episode.query[None])
    far = half_squared_distances(located, geometry.support)
    predicted = smooth([kernel(located, geometry, far) for kernel in smoothers.kernels], solved)
    return SupportStats(
        torch.cat([geometry.support[0], located[0]]).double(),
        (2 * torch.cat([near[0], far[0]])).sqrt().double(),
        torch.cat([held_out[0].mean(1), predicted[0].mean(1)]).double(),
        (held_out[0].mean(1) - targets).square().mean().item(),
    )


def _row_features(stats: SupportStats, k: int) -> Tensor:
    itself = torch.eye(len(stats.located), k, dtype=torch.bool)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    distances, inner = (
        values.masked_fill(itself, math.nan).nanquantile(levels, dim=1).T
        for values in (stats.distances, stats.located @ stats.located[:k].T)
    )
    best = stats.predictions.topk(2, dim=1).values
    norm = torch.log(stats.located.norm(dim=1, keepdim=True) + 0.1)  # as the architecture reads it
    return torch.cat([norm, distances[:, :4], inner[:, [0, 1, 3, 4]], best[:, :1] - best[:, 1:]], dim=1)


def _episode_features(stats: SupportStats, k: int) -> Tensor:
    support, query = stats.located[:k], stats.located[k:]
    shares = torch.linalg.eigvalsh(support @ support.T / k).flip(0).clamp_min(0)  # their sum is 1
    return torch.stack(
        [
            (1 / shares.square().sum().clamp_min(SMALLEST)).clamp_min(1.0).log() / math.log(k),
            shares[0].clamp_min(SMALLEST).log(),
            shares[: max(1, round(LEADING * k))].sum(),
            support.norm(dim=1).std().clamp_min(1e-3).log(),
            query.square().sum(1).mean().clamp_min(1e-3).log(),
            torch.tensor(math.log(max(stats.error, 1e-3)), dtype=torch.float64),
        ]
    )


def geometry_features(config: TartReasonerConfig) -> FeatureSet:
    """Return the features of the `kernel` architecture."""

    def points(episode: Episode) -> Tensor:
        stats, k = compute_stats(episode, config), len(episode.support)
        whole = _episode_features(stats, k).expand(len(stats.located), -1)
        return torch.cat([_row_features(stats, k), whole], dim=1)

    summary = "distances, inner products and held-out margins, centered and scaled by the support set"
    return FeatureSet(summary, ROW_FEATURES + EPISODE_FEATURES, points)


def component_features(config: TartReasonerConfig) -> FeatureSet:
    """Return the features of the `gpt2` architecture: whitened components, which were N(0, I) in training."""

    def points(episode: Episode) -> Tensor:
        return torch.cat([episode.support, episode.query]).double()

    names = tuple(f"component {i + 1}" for i in range(config.num_components))
    return FeatureSet("whitened components, which are N(0, I) in training", names, points)


Prior = Callable[[TartReasoner, Shape, Generator], Episode]
Features = Callable[[TartReasonerConfig], FeatureSet]
PRIORS: dict[str, tuple[Prior, Features]] = {
    "kernel": (rich_episode, geometry_features),
    "gpt2": (paper_episode, component_features),
}


def choose_features(config: TartReasonerConfig) -> FeatureSet:
    """Return the features of a reasoner's architecture."""
    return _find(config)[1](config)


def _find(config: TartReasonerConfig) -> tuple[Prior, Features]:
    if config.architecture not in PRIORS:
        raise ValueError(
            f'There are no synthetic tasks and features for the architecture "{config.architecture}"; it must be one '
            f"of {sorted(PRIORS)}."
        )
    return PRIORS[config.architecture]
