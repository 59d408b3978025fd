"""Synthetic classification tasks: everything a reasoner ever learns from.

A task is drawn in three steps, each from a registry of small parts in `priors`: where the inputs lie (`INPUTS`),
what the labels are (`label_weights`), and how the inputs are seen (`VIEWS`). Every draw comes from the generator that
is passed in, so the same seed gives the same tasks.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.training.priors.draws import chance, choose
from transformers_tart.training.priors.inputs import draw_inputs
from transformers_tart.training.priors.labels import label_weights
from transformers_tart.training.priors.presentations import VIEWS


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one shape: `embeddings` (batch, n, dim) float32, `labels` (batch, n) int64 from 0 to `num_classes` -
    1."""

    embeddings: Tensor
    labels: Tensor
    num_classes: int


def draw_task(size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """One task: embeddings (size, dim) of random width, and labels (size,)."""
    inputs = draw_inputs(size, generator)
    latent, labels = choose(label_weights(classes), generator)(inputs, classes, generator)
    return choose(VIEWS, generator)(latent * inputs.spread, generator), labels


def draw_split_task(support_size: int, query_size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A task whose first `support_size` rows are its support set: as they come, or, half of the time, balanced.

    A balanced support set is chosen from twice as many rows; the queries stay as they come.
    """
    if chance(0.5, generator):
        return draw_task(support_size + query_size, classes, generator)
    embeddings, labels = draw_task(2 * support_size + query_size, classes, generator)
    support = classes_in_turn(labels[: 2 * support_size])[:support_size]
    chosen = torch.cat([support, torch.arange(2 * support_size, len(labels))])
    return embeddings[chosen], labels[chosen]


def draw_batch(batch_size: int, support_size: int, query_size: int, classes: int, generator: Generator) -> TaskBatch:
    """Tasks of one shape, zero-padded to one width; each has at least two classes in its first `support_size` rows."""
    tasks: list[tuple[Tensor, Tensor]] = []
    while len(tasks) < batch_size:
        embeddings, labels = draw_split_task(support_size, query_size, classes, generator)
        if (labels[:support_size] != labels[0]).any():
            tasks.append((embeddings, labels))
    width = max(embeddings.shape[1] for embeddings, _ in tasks)
    padded = [torch.nn.functional.pad(embeddings, (0, width - embeddings.shape[1])) for embeddings, _ in tasks]
    return TaskBatch(torch.stack(padded), torch.stack([labels for _, labels in tasks]), classes)


__all__ = ["TaskBatch", "draw_batch", "draw_split_task", "draw_task"]
