"""Labels of synthetic tasks: functions of the inputs, or classes that shift the inputs."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from transformers_tart.training.priors.draws import chance, choose, log_uniform, randn, uniform
from transformers_tart.training.priors.inputs import Inputs, grouped_centers


FIELD_WAVES = 128
MAX_DEPTH = 6


def _standardize(scores: Tensor) -> Tensor:
    return (scores - scores.mean(0)) / scores.std(0).clamp_min(1e-6)


def linear_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    """Return scores linear in the latent coordinates: the paper's family when all are equally relevant."""
    return inputs.latent @ (randn(inputs.latent.shape[1], classes, generator=generator) * inputs.relevance[:, None])


def network_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    """Return scores of a random network with one hidden layer of 4 to 24 tanh units."""
    width = int(uniform(4, 25, generator))
    first = randn(inputs.latent.shape[1], width, generator=generator) * inputs.relevance[:, None]
    hidden = torch.tanh(inputs.latent @ first * 1.2 + randn(width, generator=generator) * 0.5)
    return hidden @ randn(width, classes, generator=generator)


def cluster_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    """Return random scores of each cluster; linear scores without clusters."""
    count = int(inputs.cluster.max()) + 1
    if count == 1:
        return linear_scores(inputs, classes, generator)
    return randn(count, classes, generator=generator)[inputs.cluster]


def tree_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    """Return scores of a random decision tree of depth 2 to 6, with a random direction and threshold at each node."""
    depth = int(uniform(2, MAX_DEPTH + 1, generator))
    directions = randn(inputs.latent.shape[1], 2**depth, generator=generator) * inputs.relevance[:, None]
    is_above = inputs.latent @ directions > randn(2**depth, generator=generator) * 0.5
    node = torch.ones(len(inputs.latent), dtype=torch.int64)
    for _ in range(depth):
        node = 2 * node + is_above.gather(1, node[:, None]).long().squeeze(1)
    return randn(2**depth, classes, generator=generator)[node - 2**depth]


def field_scores(inputs: Inputs, classes: int, generator: Generator) -> Tensor:
    """Return scores of a smooth random function of the embedded inputs (random Fourier features).

    Its length scale is 0.4 to 1.5 times the spread of the inputs.
    """
    embedded = inputs.latent * inputs.spread
    embedded = embedded / embedded.square().sum(1).mean().sqrt().clamp_min(1e-9)
    scale = log_uniform(0.4, 1.5, generator)
    waves = embedded @ (randn(embedded.shape[1], FIELD_WAVES, generator=generator) / scale)
    phases = torch.rand(FIELD_WAVES, generator=generator) * 2 * math.pi
    return torch.cos(waves + phases) @ randn(FIELD_WAVES, classes, generator=generator)


Scores = Callable[[Inputs, int, Generator], Tensor]

SCORES: dict[Scores, float] = {
    linear_scores: 0.1,
    network_scores: 0.1,
    cluster_scores: 0.3,
    tree_scores: 0.15,
    field_scores: 0.35,
}


def scored_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw labels from the sum of one to three score functions, with random sharpness, class bias and noise."""
    scores = _standardize(choose(SCORES, generator)(inputs, classes, generator))
    for _ in range(int(uniform(0, 3, generator))):
        other = _standardize(choose(SCORES, generator)(inputs, classes, generator))
        scores = scores + uniform(0.2, 1.5, generator) * other
    scores = _standardize(scores)
    sharpness = log_uniform(2.0, 20.0, generator) * 0.7 * math.log2(classes)
    bias = randn(classes, generator=generator) * uniform(0.0, 0.6, generator)
    probability = torch.softmax(sharpness * (scores + bias), dim=1)
    if chance(0.3, generator):
        wrong = uniform(0.0, 0.2, generator)
        probability = probability * (1 - wrong) + wrong / classes
    return inputs.latent, torch.multinomial(probability, 1, generator=generator).squeeze(1)


def class_mean_labels(inputs: Inputs, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw labels first and shift the inputs: classes of random size, each a mixture of one or more means.

    The means explain a random share of the variance of the embeddings, a larger one with many classes, which real
    data sets could not separate otherwise. Some classes are tighter than others, as spam is among mail.
    """
    size, rank = inputs.latent.shape
    share = -torch.rand(3, classes, generator=generator).clamp_min(1e-7).log().sum(0)
    labels = torch.multinomial(share, size, replacement=True, generator=generator)
    kinds = int(log_uniform(1, 1 + max(2.0, 64 / classes), generator))
    means = grouped_centers(classes * kinds, rank, generator) * inputs.relevance
    ratio = min(4.0, log_uniform(0.015, 1.0, generator) * (classes / 2) ** 0.6 * kinds**0.5)
    length = (ratio * inputs.spread.square().sum()).sqrt()
    means = means / (means * inputs.spread).norm(dim=1, keepdim=True).clamp_min(1e-9) * length
    tightness = torch.exp(-uniform(0.0, 0.5, generator) * torch.rand(classes, generator=generator))
    kind = torch.randint(kinds, (size,), generator=generator)
    return inputs.latent * tightness[labels, None] + means[labels * kinds + kind], labels


Labels = Callable[[Inputs, int, Generator], tuple[Tensor, Tensor]]


def label_weights(classes: int) -> dict[Labels, float]:
    """Return the probability of each kind of labels; with many classes, most have means of their own."""
    of_means = min(0.85, 0.4 + 0.2 * math.log2(classes / 2))
    return {scored_labels: 1 - of_means, class_mean_labels: of_means}


__all__ = ["SCORES", "class_mean_labels", "label_weights", "scored_labels"]
