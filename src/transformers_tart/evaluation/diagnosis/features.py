"""What a reasoner sees of an episode, as points: a row of features for each example and query.

The `kernel` architecture knows embeddings by inner products and distances alone, centered and scaled by the support
set. Its features are made of these, so that they do not change when the embeddings are rotated, and mean the same in
any dimension. The `gpt2` architecture reads the components themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.evaluation.diagnosis.episodes import Episode
from transformers_tart.reasoners.architectures.smoothers import Geometry, Smoothers, half_squared_distances, smooth


LEVELS = (0.0, 0.1, 0.5, 0.9, 1.0)  # quantiles of an example's distances and inner products
SMALLEST = 1e-9
LEADING = 1 / 8  # share of the directions of the support set that are called the leading ones

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
    "size of the queries beside the examples",
    "held-out error of the smoothers",
)


@dataclass(frozen=True)
class View:
    """Features of episodes.

    Attributes:
        summary: what is compared, for people.
        features: names of the d features.
        points: episode -> (k + n, d) float64, examples first.
    """

    summary: str
    features: tuple[str, ...]
    points: Callable[[Episode], Tensor]


@dataclass(frozen=True)
class SupportStats:
    """Smoothers of a support set and what they say: held out of examples, and of queries.

    Attributes:
        located: (k + n, dim) examples and queries in the units of the support set.
        distances: (k + n, k).
        predictions: (k + n, C) means over the smoothers.
        error: of the held-out predictions, relative to knowing no example.
    """

    located: Tensor
    distances: Tensor
    predictions: Tensor
    error: float


def compute_stats(episode: Episode, config: TartReasonerConfig) -> SupportStats:
    """Everything that the features are made of."""
    geometry = Geometry.of(episode.support[None].float())
    near = half_squared_distances(geometry.support, geometry.support)
    near.diagonal(dim1=1, dim2=2).zero_()
    smoothers = Smoothers.fit(geometry, near, config.kernel_sharpness or (), config.ridge_strengths or ())
    members = torch.nn.functional.one_hot(episode.labels, episode.num_classes).float()
    targets = members - members.mean(0)
    targets = targets / targets.square().mean().sqrt().clamp_min(SMALLEST)
    count = config.num_smoothers
    solved, held_out = smoothers.solve(targets[None, :, None].expand(-1, -1, count, -1))
    located = geometry.locate(episode.query[None])
    far = half_squared_distances(located, geometry.support)
    predicted = smooth([kernel(located, geometry, far) for kernel in smoothers.kernels], solved)
    error = (held_out[0].mean(1) - targets).square().mean()
    return SupportStats(
        torch.cat([geometry.support[0], located[0]]).double(),
        (2 * torch.cat([near[0], far[0]])).sqrt().double(),
        torch.cat([held_out[0].mean(1), predicted[0].mean(1)]).double(),
        error.item(),
    )


def _row_features(sight: SupportStats, k: int) -> Tensor:
    """(k + n, 10) of each example and query, beside all other examples."""
    itself = torch.eye(len(sight.located), k, dtype=torch.bool)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    inner = sight.located @ sight.located[:k].T
    distances, inner = (
        values.masked_fill(itself, math.nan).nanquantile(levels, dim=1).T for values in (sight.distances, inner)
    )
    best = sight.predictions.topk(2, dim=1).values
    norm = torch.log(sight.located.norm(dim=1) + 0.1)  # as the architecture reads it
    return torch.cat(
        [norm[:, None], distances[:, :4], inner[:, [0, 1, 3, 4]], (best[:, 0] - best[:, 1])[:, None]], dim=1
    )


def _episode_features(sight: SupportStats, k: int) -> Tensor:
    """(6,) of the support set and the queries as a whole."""
    support, query = sight.located[:k], sight.located[k:]
    shares = torch.linalg.eigvalsh(support @ support.T / k).flip(0).clamp_min(0)
    leading = shares[: max(1, round(LEADING * k))].sum()
    ratio = 1 / shares.square().sum().clamp_min(SMALLEST)  # the shares sum to 1
    norms = support.norm(dim=1)
    values = torch.stack(
        [
            ratio.clamp_min(1.0).log() / math.log(k),
            shares[0].clamp_min(SMALLEST).log(),
            leading,
            norms.std().clamp_min(1e-3).log(),
            query.square().sum(1).mean().clamp_min(1e-3).log(),
            torch.tensor(math.log(max(sight.error, 1e-3)), dtype=torch.float64),
        ]
    )
    return values


def geometry_view(config: TartReasonerConfig) -> View:
    """Of the `kernel` architecture."""

    def points(episode: Episode) -> Tensor:
        sight, k = compute_stats(episode, config), len(episode.support)
        whole = _episode_features(sight, k)
        return torch.cat([_row_features(sight, k), whole.expand(len(sight.located), -1)], dim=1)

    summary = "distances, inner products and held-out margins, centered and scaled by the support set"
    return View(summary, ROW_FEATURES + EPISODE_FEATURES, points)


def component_view(config: TartReasonerConfig) -> View:
    """Of the `gpt2` architecture: whitened components, which were N(0, I) in training."""

    def points(episode: Episode) -> Tensor:
        return torch.cat([episode.support, episode.query]).double()

    names = tuple(f"component {i + 1}" for i in range(config.num_components))
    return View("whitened components, which are N(0, I) in training", names, points)


VIEWS: dict[str, Callable[[TartReasonerConfig], View]] = {"kernel": geometry_view, "gpt2": component_view}


def view_of(config: TartReasonerConfig) -> View:
    """What a reasoner of this config sees.

    Raises:
        ValueError: When that is not known.
    """
    if config.architecture not in VIEWS:
        raise ValueError(f'What the architecture "{config.architecture}" sees is not known; it is of {sorted(VIEWS)}.')
    return VIEWS[config.architecture](config)


__all__ = ["VIEWS", "View", "view_of"]
