"""Episodes: a support set and queries as an architecture reads them; synthetic ones as in training, or moved away."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Generator, Tensor

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.priors.draws import choose, log_uniform, uniform
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, draw_batch


QUERIES = RichTasks.query_size

T = TypeVar("T")


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


PRIORS: dict[str, Callable[[TartReasoner, Shape, Generator], Episode]] = {
    "kernel": rich_episode,
    "gpt2": paper_episode,
}


def draw_episodes(reasoner: TartReasoner, shape: Shape, count: int, generator: Generator) -> list[Episode]:
    """Draw synthetic tasks of the prior on which the reasoner's architecture is trained."""
    draw = choose_by_architecture(PRIORS, reasoner.config, "synthetic tasks")
    return [draw(reasoner, shape, generator) for _ in range(count)]


def choose_by_architecture(table: Mapping[str, T], config: TartReasonerConfig, what: str) -> T:
    """Return the entry of a reasoner's architecture, or raise a ValueError where there is none."""
    if config.architecture not in table:
        raise ValueError(
            f'There are no {what} for the architecture "{config.architecture}"; it must be one of {sorted(table)}.'
        )
    return table[config.architecture]


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


MOVES: dict[Callable[[Episode, Generator], Episode], float] = dict.fromkeys(
    (move_queries, scale_queries, scale_rows, project_rows), 1.0
)


def move_episodes(episodes: Sequence[Episode], generator: Generator) -> list[Episode]:
    """Move each episode away from the prior by a random move; the labels stay."""
    return [choose(MOVES, generator)(episode, generator) for episode in episodes]
