"""Presentations: maps from latent inputs to embeddings."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from transformers_tart.training.priors.draws import log_uniform, power_law, randn, uniform


def plain_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Return the coordinates, each with its spread."""
    return rows


def noisy_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Add isotropic noise."""
    level = rows.square().mean().sqrt() * log_uniform(0.03, 1.0, generator)
    return rows + randn(*rows.shape, generator=generator) * level


def normalized_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Shift from the origin and scale to norm 1, as sentence embeddings are."""
    offset = randn(rows.shape[1], generator=generator) * rows.std(0) * uniform(0.0, 1.0, generator)
    rows = rows + offset
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)


def layered_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Concatenate the coordinates and one to three layers of random tanh features of them."""
    rows = (rows - rows.mean(0)) / rows.square().sum(1).mean().sqrt().clamp_min(1e-9)
    layers = [rows]
    for _ in range(int(uniform(1, 4, generator))):
        weights = randn(layers[-1].shape[1], min(rows.shape[1], 128), generator=generator)
        layer = torch.tanh(layers[-1] @ weights * uniform(0.3, 3.0, generator))
        layer = layer * power_law(layer.shape[1], uniform(0.0, 1.0, generator))
        layer = layer - layer.mean(0)
        layers.append(layer / layer.square().sum(1).mean().sqrt().clamp_min(1e-9))
    return torch.cat(layers, dim=1)


PRESENTATIONS: dict[Callable[[Tensor, Generator], Tensor], float] = {
    plain_embeddings: 0.25,
    noisy_embeddings: 0.15,
    normalized_embeddings: 0.35,
    layered_embeddings: 0.25,
}

__all__ = ["PRESENTATIONS"]
