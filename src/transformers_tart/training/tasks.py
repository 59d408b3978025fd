"""Synthetic classification tasks: everything a reasoner ever learns from.

A task is drawn in three steps, each from a registry of small parts: where the inputs lie (`INPUTS`), what the labels
are (`LABELS`), and how the inputs are seen (`VIEWS`). A new part is one function and one line in its registry. Every
draw comes from the generator that is passed in, so the same seed gives the same tasks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


MAX_RANK = 256


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one shape: `embeddings` (batch, n, dim) float32, `labels` (batch, n) int64 from 0 to `num_classes` -
    1."""

    embeddings: Tensor
    labels: Tensor
    num_classes: int


@dataclass(frozen=True)
class Inputs:
    """Inputs before they are seen: unit-variance coordinates, the spread of each when seen, and clusters if any.

    Attributes:
        latent: (n, rank).
        spread: (rank,) standard deviations, decreasing.
        relevance: (rank,) how much label functions lean on each coordinate.
        cluster: (n,) int64 cluster of each row, all zero without clusters.
    """

    latent: Tensor
    spread: Tensor
    relevance: Tensor
    cluster: Tensor


def uniform(low: float, high: float, generator: Generator) -> float:
    """One number, uniform between the bounds."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def log_uniform(low: float, high: float, generator: Generator) -> float:
    """One number whose logarithm is uniform between the bounds' logarithms."""
    return math.exp(uniform(math.log(low), math.log(high), generator))


def chance(probability: float, generator: Generator) -> bool:
    """True with this probability."""
    return torch.rand((), generator=generator).item() < probability


def randn(*shape: int, generator: Generator) -> Tensor:
    """Standard normal draws."""
    return torch.randn(shape, generator=generator)


def choose(registry: dict[Callable, float], generator: Generator) -> Callable:
    """One of the functions, by weight."""
    weights = torch.tensor(list(registry.values()))
    return list(registry)[int(torch.multinomial(weights, 1, generator=generator))]


def _power_law(rank: int, exponent: float) -> Tensor:
    return torch.arange(1, rank + 1, dtype=torch.float32) ** -exponent


def gaussian_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Independent standard normals."""
    return randn(size, rank, generator=generator), torch.zeros(size, dtype=torch.int64)


def heavy_tailed_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Student's t with 5 degrees of freedom: rows of very different length."""
    chi2 = randn(size, 5, generator=generator).square().mean(1, keepdim=True)
    return randn(size, rank, generator=generator) * chi2.rsqrt(), torch.zeros(size, dtype=torch.int64)


def clustered_inputs(size: int, rank: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A mixture of 2 to 32 normals whose centres lie up to 1.5 standard deviations out, sizes uneven."""
    count = int(log_uniform(2, 33, generator))
    share = torch.rand(count, generator=generator) + 0.2
    cluster = torch.multinomial(share, size, replacement=True, generator=generator)
    centres = randn(count, rank, generator=generator) * uniform(0.2, 1.5, generator)
    latent = heavy_tailed_inputs if chance(0.3, generator) else gaussian_inputs
    return latent(size, rank, generator)[0] + centres[cluster], cluster


INPUTS: dict[Callable, float] = {gaussian_inputs: 0.4, heavy_tailed_inputs: 0.2, clustered_inputs: 0.4}


def draw_inputs(size: int, generator: Generator) -> Inputs:
    """Inputs of random rank, spectrum and shape."""
    rank = int(log_uniform(4, MAX_RANK + 1, generator))
    latent, cluster = choose(INPUTS, generator)(size, rank, generator)
    spread = _power_law(rank, uniform(0.0, 1.2, generator))
    relevance = _power_law(rank, max(0.0, uniform(-0.4, 1.6, generator)))
    return Inputs(latent, spread, relevance, cluster)


def _standardise(scores: Tensor) -> Tensor:
    return (scores - scores.mean(0)) / scores.std(0).clamp_min(1e-6)


def _draw_labels(scores: Tensor, generator: Generator) -> Tensor:
    """Labels from standardised class scores (n, C): random sharpness, class bias, and sometimes wrong labels."""
    classes = scores.shape[1]
    sharpness = log_uniform(0.6, 15.0, generator) * (0.7 if classes == 2 else 1.4)
    bias = randn(classes, generator=generator) * 0.5
    probability = torch.softmax(sharpness * (scores + bias), dim=1)
    if chance(0.4, generator):
        wrong = uniform(0.0, 0.2, generator)
        probability = probability * (1 - wrong) + wrong / classes
    return torch.multinomial(probability, 1, generator=generator).squeeze(1)


def _linear_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    weights = randn(inputs.latent.shape[1], classes, generator=generator) * inputs.relevance[:, None]
    return _standardise(inputs.latent @ weights)


def linear_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on the latent coordinates; the paper's family when all are equally relevant."""
    return inputs.latent, _draw_labels(_linear_scores(inputs, classes, generator), generator)


def network_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """A random network with one hidden layer of 4 to 24 tanh units."""
    width = int(uniform(4, 25, generator))
    first = randn(inputs.latent.shape[1], width, generator=generator) * inputs.relevance[:, None]
    first = first / inputs.relevance.square().sum().sqrt()
    hidden = torch.tanh(inputs.latent @ first * 1.2 + randn(width, generator=generator) * 0.5)
    scores = _standardise(hidden @ randn(width, classes, generator=generator))
    return inputs.latent, _draw_labels(scores, generator)


def cluster_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Each cluster leans to some classes, with a linear part beside it; inputs without clusters leave that alone."""
    leaning = randn(int(inputs.cluster.max()) + 1, classes, generator=generator)
    scores = leaning[inputs.cluster] + uniform(0.05, 0.8, generator) * _linear_scores(inputs, classes, generator)
    return inputs.latent, _draw_labels(_standardise(scores), generator)


def class_mean_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """The label comes first and shifts the inputs: classes of random size, each with a mean of its own."""
    size, rank = inputs.latent.shape
    share = -torch.rand(3, classes, generator=generator).clamp_min(1e-7).log().sum(0)
    labels = torch.multinomial(share, size, replacement=True, generator=generator)
    means = randn(classes, rank, generator=generator) * inputs.relevance
    means = means / means.norm(dim=1, keepdim=True) * log_uniform(0.5, 5.0, generator)
    return inputs.latent + means[labels], labels


LABELS: dict[Callable, float] = {
    linear_labels: 0.35,
    network_labels: 0.15,
    cluster_labels: 0.2,
    class_mean_labels: 0.3,
}


def plain_view(seen: Tensor, generator: Generator) -> Tensor:
    """The coordinates, each with its spread."""
    return seen


def normalised_view(seen: Tensor, generator: Generator) -> Tensor:
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
        layer = layer * _power_law(layer.shape[1], uniform(0.0, 1.0, generator))
        layer = layer - layer.mean(0)
        views.append(layer / layer.square().sum(1).mean().sqrt().clamp_min(1e-9))
    return torch.cat(views, dim=1)


VIEWS: dict[Callable, float] = {plain_view: 0.4, normalised_view: 0.35, layered_view: 0.25}


def draw_task(size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """One task: embeddings (size, dim) of random width, and labels (size,)."""
    inputs = draw_inputs(size, generator)
    latent, labels = choose(LABELS, generator)(inputs, classes, generator)
    return choose(VIEWS, generator)(latent * inputs.spread, generator), labels


def draw_batch(batch_size: int, support_size: int, query_size: int, classes: int, generator: Generator) -> TaskBatch:
    """Tasks of one shape, zero-padded to one width; each has at least two classes in its first `support_size` rows."""
    tasks: list[tuple[Tensor, Tensor]] = []
    while len(tasks) < batch_size:
        embeddings, labels = draw_task(support_size + query_size, classes, generator)
        if (labels[:support_size] != labels[0]).any():
            tasks.append((embeddings, labels))
    width = max(embeddings.shape[1] for embeddings, _ in tasks)
    padded = [torch.nn.functional.pad(embeddings, (0, width - embeddings.shape[1])) for embeddings, _ in tasks]
    return TaskBatch(torch.stack(padded), torch.stack([labels for _, labels in tasks]), classes)


__all__ = ["INPUTS", "LABELS", "VIEWS", "Inputs", "TaskBatch", "draw_batch", "draw_inputs", "draw_task"]
