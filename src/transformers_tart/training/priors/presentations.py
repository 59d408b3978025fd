"""How inputs are seen: what becomes of them on the way to an embedding."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from transformers_tart.training.priors.draws import log_uniform, power_law, randn, uniform


def plain_view(seen: Tensor, generator: Generator) -> Tensor:
    """The coordinates, each with its spread."""
    return seen


def noisy_view(seen: Tensor, generator: Generator) -> Tensor:
    """The coordinates under noise that is the same in every direction."""
    level = seen.square().mean().sqrt() * log_uniform(0.03, 1.0, generator)
    return seen + randn(*seen.shape, generator=generator) * level


def normalized_view(seen: Tensor, generator: Generator) -> Tensor:
    """Offset from the origin and scaled to length 1, as sentence embeddings are."""
    offset = randn(seen.shape[1], generator=generator) * seen.std(0) * uniform(0.0, 1.0, generator)
    seen = seen + offset
    return seen / seen.norm(dim=1, keepdim=True).clamp_min(1e-9)


def layered_view(seen: Tensor, generator: Generator) -> Tensor:
    """The coordinates beside random tanh features of them, as the layers of a network lie side by side."""
    seen = (seen - seen.mean(0)) / seen.square().sum(1).mean().sqrt().clamp_min(1e-9)
    views = [seen]
    for _ in range(int(uniform(1, 4, generator))):
        weights = randn(views[-1].shape[1], min(seen.shape[1], 128), generator=generator)
        layer = torch.tanh(views[-1] @ weights * uniform(0.3, 3.0, generator))
        layer = layer * power_law(layer.shape[1], uniform(0.0, 1.0, generator))
        layer = layer - layer.mean(0)
        views.append(layer / layer.square().sum(1).mean().sqrt().clamp_min(1e-9))
    return torch.cat(views, dim=1)


VIEWS: dict[Callable[[Tensor, Generator], Tensor], float] = {
    plain_view: 0.25,
    noisy_view: 0.15,
    normalized_view: 0.35,
    layered_view: 0.25,
}

__all__ = ["VIEWS"]
