"""Views of a synthetic task: several embeddings of the same latent inputs, of different worth."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from transformers_tart.training.priors.draws import chance, choose, log_uniform, power_law, uniform


def plain_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Return the coordinates, each with its spread."""
    return rows


def noisy_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Add isotropic noise."""
    level = rows.square().mean().sqrt() * log_uniform(0.03, 1.0, generator)
    return rows + torch.randn(rows.shape, generator=generator) * level


def normalized_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Shift from the origin and scale to norm 1, as sentence embeddings are."""
    offset = torch.randn(rows.shape[1], generator=generator) * rows.std(0) * uniform(0.0, 1.0, generator)
    rows = rows + offset
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-9)


def layered_embeddings(rows: Tensor, generator: Generator) -> Tensor:
    """Concatenate the coordinates and one to three layers of random tanh features of them."""
    rows = (rows - rows.mean(0)) / rows.square().sum(1).mean().sqrt().clamp_min(1e-9)
    layers = [rows]
    for _ in range(int(uniform(1, 4, generator))):
        weights = torch.randn(layers[-1].shape[1], min(rows.shape[1], 128), generator=generator)
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


def reweighted_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Let other coordinates dominate."""
    weight = torch.exp(torch.randn(rows.shape[1], generator=generator) * uniform(0.0, 1.0, generator))
    return rows * weight


def narrow_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Keep random combinations of the coordinates, fewer than there are."""
    rank = max(2, int(rows.shape[1] * uniform(0.05, 0.8, generator)))
    return rows @ torch.randn(rows.shape[1], rank, generator=generator) * rank**-0.5


def noised_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Add noise, whose spectrum is that of the rows: what the view reads besides."""
    level = log_uniform(0.3, 4.0, generator)
    noise = torch.randn(rows.shape, generator=generator) * rows.std(0)
    return rows + level * noise[:, torch.randperm(rows.shape[1], generator=generator)]


def useless_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Return rows of other inputs."""
    return rows[torch.randperm(len(rows), generator=generator)]


def confused_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Exchange the rows of some classes among these, so that only the other classes can be told apart."""
    classes = int(labels.max()) + 1
    confused = torch.rand(classes, generator=generator) < uniform(0.3, 0.9, generator)
    place = confused[labels].nonzero()[:, 0]
    rows = rows.clone()
    rows[place] = rows[place[torch.randperm(len(place), generator=generator)]]
    return rows


def whole_rows(rows: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Return the rows."""
    return rows


VIEWS: dict[Callable[[Tensor, Tensor, Generator], Tensor], float] = {
    whole_rows: 0.25,
    reweighted_rows: 0.2,
    narrow_rows: 0.15,
    noised_rows: 0.25,
    confused_rows: 0.1,
    useless_rows: 0.05,
}


def draw_views(rows: Tensor, labels: Tensor, count: int, generator: Generator) -> list[Tensor]:
    """Draw views (n, width) of rows (n, rank) with labels (n,); a third are near copies of another."""
    views: list[Tensor] = []
    while len(views) < count:
        if views and chance(0.33, generator):
            twin = views[int(torch.randint(len(views), (), generator=generator))]
            level = twin.std(0, keepdim=True) * log_uniform(0.05, 1.0, generator)
            views.append(twin + torch.randn(twin.shape, generator=generator) * level)
            continue
        seen = choose(VIEWS, generator)(rows, labels, generator)
        views.append(choose(PRESENTATIONS, generator)(seen, generator))
    return views
