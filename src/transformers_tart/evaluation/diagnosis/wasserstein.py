"""Sliced Wasserstein distances: how far apart two distributions lie, by their one-dimensional projections.

Sliced: Bonneel, Rabin, Peyré and Pfister 2015, "Sliced and Radon Wasserstein barycenters of measures". Max-sliced:
Deshpande et al. 2019, arXiv 1904.05877.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor


NUM_DIRECTIONS = 64
MAX_POINTS = 20_000  # of a reference: more say little more
SMALLEST_SPREAD = 1e-6  # a feature that is constant in the reference is told apart in this unit


def random_directions(dim: int, count: int, generator: Generator) -> Tensor:
    """(count, dim) float64, uniform on the unit sphere."""
    directions = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return directions / directions.norm(dim=1, keepdim=True)


def squared_wasserstein(x: Tensor, y: Tensor) -> Tensor:
    """Squared 2-Wasserstein distances (p,) between the columns of x (n, p) and y (m, p), each column sorted.

    In one dimension that is the integral of the squared difference of the quantile functions, which are constant
    between the multiples of 1/n and of 1/m.
    """
    n, m = len(x), len(y)
    steps = torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]).unique()
    weights = (steps[1:] - steps[:-1]).to(x.dtype) / (n * m)
    difference = x[steps[:-1] // m] - y[steps[:-1] // n]
    return weights @ difference.square()


def _slices(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    """Squared distances (directions,) of two checked point sets along directions (directions, d)."""
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(
            f"The point sets have shapes {tuple(x.shape)} and {tuple(y.shape)}; they must be (n, d) and (m, d), with "
            "a point each."
        )
    seen = [(points.double() @ directions.T).sort(dim=0).values for points in (x, y)]
    return squared_wasserstein(*seen)


def sliced_wasserstein(x: Tensor, y: Tensor, generator: Generator, num_directions: int = NUM_DIRECTIONS) -> float:
    r"""
    Sliced 2-Wasserstein distance, times the root of the dimension.

    In these units it is at most the 2-Wasserstein distance itself, and equal to it where one set is a translation of
    the other: a translation by c is |c| far in any dimension, up to the chance of the directions.

    Args:
        x (`torch.FloatTensor` of shape `(n, d)`), y (`torch.FloatTensor` of shape `(m, d)`):
            The point sets.
        generator (`torch.Generator`):
            Draws the directions.
        num_directions (`int`, *optional*, defaults to 64):
            How many.
    """
    slices = _slices(x, y, random_directions(x.shape[-1], num_directions, generator))
    return (x.shape[-1] * slices.mean()).sqrt().item()


def max_sliced_wasserstein(x: Tensor, y: Tensor, generator: Generator, num_directions: int = NUM_DIRECTIONS) -> float:
    """The largest 2-Wasserstein distance along random directions and the axes: at most the max-sliced distance.

    The arguments are those of [`sliced_wasserstein`].
    """
    directions = random_directions(x.shape[-1], num_directions, generator)
    return _slices(x, y, torch.cat([directions, torch.eye(x.shape[-1]).double()])).max().sqrt().item()


class Distances(NamedTuple):
    """Of a point set from a reference: sliced, max-sliced, (d,) along each feature, and (d,) of the means, signed."""

    sliced: float
    largest: float
    features: Tensor
    means: Tensor


@dataclass(frozen=True)
class Reference:
    """A point set from which many others are measured, in units of its standard deviation of each feature.

    Attributes:
        mean: (d,).
        spread: (d,).
        directions: (directions, d), the last d of which are the axes.
        slices: (n, directions) the set along the directions, sorted.
    """

    mean: Tensor
    spread: Tensor
    directions: Tensor
    slices: Tensor

    @classmethod
    def fit(cls, points: Tensor, generator: Generator, num_directions: int = NUM_DIRECTIONS) -> "Reference":
        """Of points (n, d), of which at most 20,000 are kept, drawn by the generator."""
        if len(points) > MAX_POINTS:
            points = points[torch.randperm(len(points), generator=generator)[:MAX_POINTS]]
        points = points.double()
        mean, spread = points.mean(0), points.std(0, correction=0).clamp_min(SMALLEST_SPREAD)
        drawn = random_directions(points.shape[1], num_directions, generator)
        directions = torch.cat([drawn, torch.eye(points.shape[1], dtype=torch.float64)])
        return cls(mean, spread, directions, ((points - mean) / spread @ directions.T).sort(dim=0).values)

    def measure(self, points: Tensor) -> Distances:
        """How far points (m, d) are from the reference."""
        dim = len(self.mean)
        scaled = (points.double() - self.mean) / self.spread
        squared = squared_wasserstein((scaled @ self.directions.T).sort(dim=0).values, self.slices)
        sliced = (dim * squared[:-dim].mean()).sqrt().item()
        return Distances(sliced, squared.max().sqrt().item(), squared[-dim:].sqrt(), scaled.mean(0))


__all__ = ["Distances", "Reference", "max_sliced_wasserstein", "random_directions", "sliced_wasserstein"]
