"""Random numbers from a generator that is passed in."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Generator, Tensor


Part = TypeVar("Part", bound=Callable)


def uniform(low: float, high: float, generator: Generator) -> float:
    """Draw a number, uniform between the bounds."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def log_uniform(low: float, high: float, generator: Generator) -> float:
    """Draw a number whose logarithm is uniform between the logarithms of the bounds."""
    return math.exp(uniform(math.log(low), math.log(high), generator))


def chance(probability: float, generator: Generator) -> bool:
    """Return `True` with a probability."""
    return torch.rand((), generator=generator).item() < probability


def randn(*shape: int, generator: Generator) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator)


def choose(registry: Mapping[Part, float], generator: Generator) -> Part:
    """Draw one of the parts by weight."""
    weights = torch.tensor(list(registry.values()))
    return list(registry)[int(torch.multinomial(weights, 1, generator=generator))]


def power_law(size: int, exponent: float) -> Tensor:
    """Return numbers (size,) that fall as a power of the position."""
    return torch.arange(1, size + 1, dtype=torch.float32) ** -exponent


__all__ = ["chance", "choose", "log_uniform", "power_law", "randn", "uniform"]
