"""Features of an episode as its reasoner reads it: a row for each example and query.

The `kernel` architecture reads only inner products and distances, centered and scaled by the support set. Its features
are functions of these, so they do not change when embeddings are rotated and are comparable across dimensions. The
`gpt2` architecture reads the components themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.evaluation.diagnosis.episodes import Episode, choose_by_architecture
from transformers_tart.reasoners.architectures.smoothers import Geometry, Smoothers, half_squared_distances, smooth


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


FEATURE_SETS: dict[str, Callable[[TartReasonerConfig], FeatureSet]] = {
    "kernel": geometry_features,
    "gpt2": component_features,
}


def choose_features(config: TartReasonerConfig) -> FeatureSet:
    """Return the features of a reasoner's architecture."""
    return choose_by_architecture(FEATURE_SETS, config, "features")(config)
