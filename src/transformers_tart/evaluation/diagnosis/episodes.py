"""Episodes: a support set and queries as an architecture reads them; synthetic ones as in training, or moved away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.priors.draws import choose, log_uniform, randn, uniform
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, draw_batch


QUERIES = RichTasks.query_size


@dataclass(frozen=True)
class Episode:
    """A task as an architecture reads it, after the projection."""

    support: Tensor  # (k, dim) float32
    labels: Tensor  # (k,) int64
    query: Tensor  # (n, dim) float32
    num_classes: int  # number of classes
    truth: Tensor | None = None  # (n,) int64 labels of the queries, if known

    @property
    def known_truth(self) -> Tensor:
        """Labels of the queries.

        Raises:
            ValueError: When they are unknown.
        """
        if self.truth is None:
            raise ValueError("The queries of an episode have no labels; regret needs them.")
        return self.truth


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
    k = shape.k
    return Episode(embeddings[:k], labels[:k], embeddings[k:], shape.classes, labels[k:])


PRIORS: dict[str, Callable[[TartReasoner, Shape, Generator], Episode]] = {
    "kernel": rich_episode,
    "gpt2": paper_episode,
}


def draw_episodes(reasoner: TartReasoner, shape: Shape, count: int, generator: Generator) -> list[Episode]:
    """Draw synthetic tasks of the prior on which the reasoner's architecture is trained.

    Raises:
        ValueError: When the architecture has no prior.
    """
    architecture = reasoner.config.architecture
    if architecture not in PRIORS:
        raise ValueError(
            f'There are no synthetic tasks for the architecture "{architecture}"; it must be one of {sorted(PRIORS)}.'
        )
    return [PRIORS[architecture](reasoner, shape, generator) for _ in range(count)]


def move_queries(episode: Episode, generator: Generator) -> Episode:
    """Move all queries in one direction, by up to twice the spread of the support set."""
    centered = episode.support - episode.support.mean(0)
    direction = randn(centered.shape[1], generator=generator)
    length = uniform(0.0, 2.0, generator) * centered.square().sum(1).mean().sqrt()
    return replace(episode, query=episode.query + direction / direction.norm() * length)


def scale_queries(episode: Episode, generator: Generator) -> Episode:
    """Scale the queries about the mean of the support set."""
    middle = episode.support.mean(0)
    return replace(episode, query=middle + (episode.query - middle) * log_uniform(0.3, 3.0, generator))


def scale_rows(episode: Episode, generator: Generator) -> Episode:
    """Scale every row by a random factor of its own."""
    level = uniform(0.0, 1.5, generator)
    support, query = (
        rows * torch.exp(level * randn(len(rows), 1, generator=generator)) for rows in (episode.support, episode.query)
    )
    return replace(episode, support=support, query=query)


def project_rows(episode: Episode, generator: Generator) -> Episode:
    """Project all rows to a random subspace of 1 to 64 dimensions."""
    dim = episode.support.shape[1]
    rank = min(int(2 ** uniform(0.0, 6.0, generator)), dim)
    basis = torch.linalg.qr(randn(dim, rank, generator=generator)).Q
    return replace(episode, support=episode.support @ basis @ basis.T, query=episode.query @ basis @ basis.T)


MOVES: dict[Callable[[Episode, Generator], Episode], float] = {
    move_queries: 1.0,
    scale_queries: 1.0,
    scale_rows: 1.0,
    project_rows: 1.0,
}


def move_episodes(episodes: Sequence[Episode], generator: Generator) -> list[Episode]:
    """Move each episode away from the prior by a random move; the labels stay."""
    return [choose(MOVES, generator)(episode, generator) for episode in episodes]
