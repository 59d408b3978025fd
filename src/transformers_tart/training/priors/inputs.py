"""Distributions of the inputs of synthetic tasks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from transformers_tart.training.priors.draws import chance, choose, log_uniform, power_law, randn, uniform


MAX_RANK = 384


@dataclass(frozen=True)
class Inputs:
    """Latent inputs of a task.

    Attributes:
        latent: (n, rank) coordinates of unit variance.
        spread: (rank,) standard deviation of each coordinate in the embedding, decreasing.
        relevance: (rank,) weight of each coordinate in label functions.
        cluster: (n,) int64 cluster of each row; all zero without clusters.
    """

    latent: Tensor
    spread: Tensor
    relevance: Tensor
    cluster: Tensor


def gaussian_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw independent standard normal coordinates."""
    return randn(size, rank, generator=generator), torch.zeros(size, dtype=torch.int64)


def heavy_tailed_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw from Student's t with 5 degrees of freedom: rows of very different norms."""
    chi2 = randn(size, 5, generator=generator).square().mean(1, keepdim=True)
    return randn(size, rank, generator=generator) * chi2.rsqrt(), torch.zeros(size, dtype=torch.int64)


def clustered_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw from 2 to 128 clusters of uneven size, with centers up to 0.8 standard deviations out."""
    count = int(log_uniform(2, 129, generator))
    share = torch.rand(count, generator=generator) + 0.2
    cluster = torch.multinomial(share, size, replacement=True, generator=generator)
    centers = grouped_centers(count, rank, generator) * uniform(0.1, 0.8, generator)
    latent = heavy_tailed_inputs if chance(0.3, generator) else gaussian_inputs
    return latent(size, rank, generator)[0] + centers[cluster], cluster


def grouped_centers(count: int, rank: int, generator: Generator) -> Tensor:
    """Draw centers (count, rank) of unit variance, half of the time in groups."""
    centers = randn(count, rank, generator=generator)
    if count < 4 or chance(0.5, generator):
        return centers
    groups = int(log_uniform(2, count / 2 + 1, generator))
    parent = torch.randint(groups, (count,), generator=generator)
    shared = uniform(0.2, 0.9, generator)
    return shared**0.5 * randn(groups, rank, generator=generator)[parent] + (1 - shared) ** 0.5 * centers


def nested_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw from clusters of clusters, 2 to 4 levels deep, as texts have topics, subtopics and near copies.

    All levels together explain 5% to 60% of the variance. The reported clusters are those of one random level.
    """
    depth = int(uniform(2, 5, generator))
    counts = sorted(int(log_uniform(2, max(4, size / 2), generator)) for _ in range(depth))
    explained = uniform(0.05, 0.6, generator)
    variance = -torch.rand(depth, generator=generator).clamp_min(1e-7).log()
    deviation = (explained * variance / variance.sum()).sqrt()
    share = torch.rand(counts[-1], generator=generator).clamp_min(1e-3) ** -0.7
    node = torch.multinomial(share, size, replacement=True, generator=generator)
    latent = randn(size, rank, generator=generator) * (1 - explained) ** 0.5
    chosen, cluster = int(uniform(0, depth, generator)), node
    for level in range(depth - 1, -1, -1):
        latent = latent + deviation[level] * randn(counts[level], rank, generator=generator)[node]
        cluster = node if level == chosen else cluster
        if level:
            node = torch.randint(counts[level - 1], (counts[level],), generator=generator)[node]
    return latent, cluster


INPUTS: dict[Callable[[int, int, Generator], tuple[Tensor, Tensor]], float] = {
    gaussian_inputs: 0.1,
    heavy_tailed_inputs: 0.1,
    clustered_inputs: 0.2,
    nested_inputs: 0.6,
}


def draw_spread(rank: int, generator: Generator) -> Tensor:
    """Draw standard deviations of the coordinates: a power law, half of the time a steeper one in the tail."""
    spread = power_law(rank, uniform(0.0, 0.5, generator))
    if chance(0.5, generator):
        bend = log_uniform(20, 200, generator)
        spread = spread * (1 + torch.arange(rank) / bend) ** -uniform(0.0, 0.8, generator)
    return spread


def draw_inputs(size: int, generator: Generator) -> Inputs:
    """Draw inputs of random rank, spectrum and shape.

    Labels may depend on the directions that vary most, on all alike, on those that vary least, or on few coordinates.
    """
    rank = int(log_uniform(4 if chance(0.1, generator) else 64, MAX_RANK + 1, generator))
    latent, cluster = choose(INPUTS, generator)(size, rank, generator)
    spread = draw_spread(rank, generator)
    relevance = power_law(rank, uniform(-0.2, 0.2, generator)) * spread ** uniform(0.0, 3.0, generator)
    if chance(0.15, generator):
        count = int(log_uniform(1, rank + 1, generator))
        relevance = relevance * (torch.randperm(rank, generator=generator) < count)
    return Inputs(latent, spread, relevance / relevance.norm(), cluster)


__all__ = ["INPUTS", "Inputs", "draw_inputs", "grouped_centers"]
