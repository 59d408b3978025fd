"""Synthetic tasks, from which alone a reasoner learns: the rich prior, and the family of the TART paper.

Every draw comes from the generator that is passed in, so the same seed gives the same tasks.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.training.priors.draws import chance, choose, log_uniform, randn
from transformers_tart.training.priors.inputs import draw_inputs
from transformers_tart.training.priors.labels import label_weights
from transformers_tart.training.priors.presentations import PRESENTATIONS


VALIDATION_SHAPES = ((16, 2), (64, 2), (256, 2), (1024, 2), (20, 5), (80, 5), (320, 20), (240, 60))


@dataclass(frozen=True)
class Ramp:
    """A number that grows from `start` to `end` by `increment` after every `interval` steps (arXiv 2306.07536)."""

    start: int
    end: int
    increment: int
    interval: int

    def at(self, step: int) -> int:
        """Return the value during a step, counted from 0."""
        return min(self.end, self.start + step // self.interval * self.increment)


@dataclass(frozen=True)
class TrainingBatch:
    """The tasks of a step: a support set and queries each, or sequences in which every example is a query in turn.

    Attributes:
        embeddings: (tasks, n, dim) float32.
        labels: (tasks, n) int64 from 0.
        num_classes: number of classes.
        support_size: number of leading rows that are the support set of each task; `None` for sequences.
    """

    embeddings: Tensor
    labels: Tensor
    num_classes: int
    support_size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def share(self, index: int, count: int) -> "TrainingBatch":
        """Return every `count`-th task from the `index`-th on: the share of one of `count` processes."""
        mine = slice(index, None, count)
        return replace(self, embeddings=self.embeddings[mine], labels=self.labels[mine])

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Move the tasks to another device."""
        return replace(self, embeddings=self.embeddings.to(device), labels=self.labels.to(device))


def draw_task(size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw one task of the rich prior: embeddings (size, dim) of random width, and labels (size,).

    Each of the three parts comes from a registry in `priors`: the inputs (`INPUTS`), the labels (`label_weights`), and
    the way from inputs to embeddings (`PRESENTATIONS`).
    """
    inputs = draw_inputs(size, generator)
    latent, labels = choose(label_weights(classes), generator)(inputs, classes, generator)
    return choose(PRESENTATIONS, generator)(latent * inputs.spread, generator), labels


def _draw_split_task(support_size: int, query_size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw a task that begins with its support set, which is balanced half of the time; queries never are."""
    if chance(0.5, generator):
        return draw_task(support_size + query_size, classes, generator)
    embeddings, labels = draw_task(2 * support_size + query_size, classes, generator)
    support = classes_in_turn(labels[: 2 * support_size])[:support_size]
    chosen = torch.cat([support, torch.arange(2 * support_size, len(labels))])
    return embeddings[chosen], labels[chosen]


def draw_batch(
    batch_size: int, support_size: int, query_size: int, classes: int, generator: Generator
) -> TrainingBatch:
    """Draw tasks of one shape, zero-padded to one width, each with at least two classes in its support set."""
    tasks: list[tuple[Tensor, Tensor]] = []
    while len(tasks) < batch_size:
        embeddings, labels = _draw_split_task(support_size, query_size, classes, generator)
        if (labels[:support_size] != labels[0]).any():
            tasks.append((embeddings, labels))
    width = max(embeddings.shape[1] for embeddings, _ in tasks)
    padded = [torch.nn.functional.pad(embeddings, (0, width - embeddings.shape[1])) for embeddings, _ in tasks]
    return TrainingBatch(torch.stack(padded), torch.stack([labels for _, labels in tasks]), classes, support_size)


@dataclass(frozen=True)
class TaskSource(ABC):
    """A distribution of tasks; its fields are recorded with a run."""

    @abstractmethod
    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw the tasks of a step, counted from 0."""

    @abstractmethod
    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Draw tasks with a support set to validate on, one batch for each shape, at full difficulty."""


@dataclass(frozen=True)
class RichTasks(TaskSource):
    r"""
    Tasks of the rich prior, of random sizes and numbers of classes.

    Args:
        support ([`Ramp`], *optional*, defaults to 128 to 1024, by 128 every 120 steps):
            Largest support set. Sizes are log-uniform from `min_support`, and at least the number of classes.
        classes ([`Ramp`], *optional*, defaults to 10 to 100, by 15 every 120 steps):
            Most classes: two in 40% of the steps, else 3 to this many, log-uniform.
        min_support (`int`, *optional*, defaults to 4):
            Smallest support set.
        query_size (`int`, *optional*, defaults to 64):
            Queries of a task.
        effort (`int`, *optional*, defaults to 20000):
            Compute of a step, which sets the number of its tasks: examples times (classes + support size / 64), which
            is about proportional to the cost of the `kernel` architecture.
        validation_shapes (`tuple[tuple[int, int], ...]`, *optional*):
            Support size and classes of the tasks to validate on; shapes beyond the end of the ramps are left out.
        validation_tasks (`int`, *optional*, defaults to 16):
            Tasks of each shape.
    """

    support: Ramp = Ramp(start=128, end=1024, increment=128, interval=120)
    classes: Ramp = Ramp(start=10, end=100, increment=15, interval=120)
    min_support: int = 4
    query_size: int = 64
    effort: int = 20_000
    validation_shapes: tuple[tuple[int, int], ...] = VALIDATION_SHAPES
    validation_tasks: int = 16

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw tasks of one size and number of classes."""
        most = self.classes.at(step)
        two = most == 2 or chance(0.4, generator)
        classes = 2 if two else int(log_uniform(3, most + 1, generator))
        support = max(int(log_uniform(self.min_support, self.support.at(step) + 1, generator)), classes)
        count = max(1, int(self.effort / ((support + self.query_size) * (classes + support / 64))))
        return draw_batch(count, support, self.query_size, classes, generator)

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Draw tasks of two and of more classes, no larger than those of the training."""
        return tuple(
            draw_batch(self.validation_tasks, support, self.query_size, classes, generator)
            for support, classes in self.validation_shapes
            if support <= self.support.end and classes <= self.classes.end
        )


@dataclass(frozen=True)
class PaperTasks(TaskSource):
    r"""
    The family of arXiv 2306.07536 (section 4.1): x ~ N(0, I), w ~ alpha N(0, I), y ~ Bernoulli(sigmoid(w·x)).

    Args:
        dims ([`Ramp`]):
            Coordinates of x in use; the others are 0.
        points ([`Ramp`]):
            Examples of a sequence.
        dim (`int`, *optional*, defaults to 16):
            Width of x.
        alpha (`int`, *optional*, defaults to 10):
            Scale of w: the larger, the less noise in the labels.
        variable_alpha (`bool`, *optional*, defaults to `False`):
            Whether each task draws its own scale, an integer from 1 to `alpha`.
        batch_size (`int`, *optional*, defaults to 128):
            Sequences of a step.
    """

    dims: Ramp
    points: Ramp
    dim: int = 16
    alpha: int = 10
    variable_alpha: bool = False
    batch_size: int = 128

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw sequences of the length and the number of dimensions that the step has reached."""
        x = randn(self.batch_size, self.points.at(step), self.dim, generator=generator)
        x[..., self.dims.at(step) :] = 0.0
        weights = self._draw_weights(generator)
        labels = torch.bernoulli(torch.sigmoid(x @ weights)[..., 0], generator=generator).long()
        return TrainingBatch(x, labels, num_classes=2)

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Draw tasks of full width at a quarter of the longest support set, and at the longest, 32 queries each."""
        longest = self.points.end - 1
        batches = []
        for size in (longest // 4, longest):
            dims, points = Ramp(self.dim, self.dim, 0, 1), Ramp(size + 32, size + 32, 0, 1)
            batch = replace(self, dims=dims, points=points, batch_size=2 * self.batch_size).draw(0, generator)
            both = (batch.labels[:, :size] != batch.labels[:, :1]).any(1)
            batches.append(TrainingBatch(batch.embeddings[both], batch.labels[both], 2, support_size=size))
        return tuple(batches)

    def _draw_weights(self, generator: Generator) -> Tensor:
        """Draw w (batch, dim, 1)."""
        weights = randn(self.batch_size, self.dim, 1, generator=generator)
        if not self.variable_alpha:
            return self.alpha * weights
        return weights * torch.randint(1, self.alpha + 1, (len(weights), 1, 1), generator=generator)


__all__ = ["PaperTasks", "Ramp", "RichTasks", "TaskSource", "TrainingBatch", "draw_batch", "draw_task"]
