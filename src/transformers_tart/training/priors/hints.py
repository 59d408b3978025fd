"""Label hints of synthetic tasks: scores of each class that need no example, of every worth.

A hint is a sum of what it says about the label, of what it confuses systematically, of a smooth function of the
inputs, of noise, and of a bias towards classes, in an arbitrary unit.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from transformers_tart.training.priors.draws import chance, log_uniform, uniform


MISLEADING = 0.04
USELESS = 0.1
PARTIAL = 0.15
CONTENT_FREE = 0.3  # of the rows without labels, the share of tasks in which they hold the bias alone


def draw_hint(latent: Tensor, labels: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw a hint (n, C) without bias or unit, and its bias (C,), for latent inputs (n, rank)."""
    size = len(labels)
    worth = 0.0 if chance(USELESS, generator) else log_uniform(0.25, 2.5, generator) * math.log2(2 * classes) ** 0.5
    order = torch.arange(classes)
    if chance(MISLEADING, generator):
        order = torch.randperm(classes, generator=generator)
    known = torch.ones(classes)
    if classes > 2 and chance(PARTIAL, generator):
        known = (torch.rand(classes, generator=generator) < uniform(0.3, 0.9, generator)).float()
    clarity = torch.exp(torch.randn(classes, generator=generator) * uniform(0.0, 0.6, generator)) * known
    confusion = torch.randn(classes, classes, generator=generator) * uniform(0.0, 0.7, generator) * worth
    about = one_hot(order[labels], classes) * clarity * worth + confusion[labels]
    weights = torch.randn(latent.shape[1], classes, generator=generator) * latent.shape[1] ** -0.5
    smooth = latent @ weights
    smooth = (smooth - smooth.mean(0)) / smooth.std(0).clamp_min(1e-6)
    share = uniform(0.0, 1.0, generator)
    noise = torch.randn(size, classes, generator=generator)
    bias = torch.randn(classes, generator=generator) * log_uniform(0.1, 4.0, generator)
    return about + share**0.5 * smooth + (1 - share) ** 0.5 * noise, bias


def draw_hints(
    latent: Tensor, labels: Tensor, classes: int, count: int, unlabeled: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw hints (n, H, C) of all rows, and (m, H, C) of the last `unlabeled`, which are to be without labels.

    Some hints are near copies of the one before, as two wordings of a label are; some miss classes.
    """
    found: list[Tensor] = []
    has_content = not chance(CONTENT_FREE, generator)
    keep = len(labels) - unlabeled
    last: tuple[Tensor, Tensor] | None = None
    for _ in range(count):
        if last is not None and chance(0.4, generator):
            rows, bias = last
            level = log_uniform(0.1, 1.0, generator)
            rows = rows + level * torch.randn(rows.shape, generator=generator)
            bias = bias + level * torch.randn(classes, generator=generator)
        else:
            rows, bias = draw_hint(latent, labels, classes, generator)
        last = rows, bias
        if not has_content:
            spread = uniform(0.1, 0.7, generator)
            rows = torch.cat([rows[:keep], spread * torch.randn(unlabeled, classes, generator=generator)])
        hint = (rows + bias) * log_uniform(0.01, 100.0, generator)
        if classes > 2 and chance(0.05, generator):
            hint[:, torch.randperm(classes, generator=generator)[: classes // 3]] = float("nan")
        found.append(hint)
    hints = torch.stack(found, dim=1)
    return hints[:keep], hints[keep:]
