"""Where the tasks of a training step come from: the rich prior of `tasks.py`, or the family of the paper."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from transformers_tart.training.curriculum import Ramp
from transformers_tart.training.priors.draws import chance, log_uniform, randn
from transformers_tart.training.tasks import draw_batch


VALIDATION_SHAPES = ((16, 2), (64, 2), (256, 2), (1024, 2), (20, 5), (80, 5), (320, 20), (240, 60))


@dataclass(frozen=True)
class TrainingBatch:
    """The tasks of a step: a support set and queries each, or sequences in which every example is a query in turn.

    Attributes:
        embeddings: (tasks, n, dim) float32.
        labels: (tasks, n) int64 from 0.
        num_classes: number of classes.
        support_size: the first rows of each task that are its support set; `None` for sequences.
    """

    embeddings: Tensor
    labels: Tensor
    num_classes: int
    support_size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def share(self, index: int, count: int) -> "TrainingBatch":
        """Every `count`-th task from the `index`-th on: what one of `count` processes reads."""
        mine = slice(index, None, count)
        return TrainingBatch(self.embeddings[mine], self.labels[mine], self.num_classes, self.support_size)

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same tasks on another device."""
        return TrainingBatch(self.embeddings.to(device), self.labels.to(device), self.num_classes, self.support_size)


@dataclass(frozen=True)
class TaskSource(ABC):
    """Draws the tasks of a step; its fields are recorded with a run."""

    @abstractmethod
    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Tasks of a step, counted from 0; every draw from the generator."""

    @abstractmethod
    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Tasks with a support set to validate on, one batch for each shape, at full difficulty."""


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
            Work of a step, which decides the number of its tasks: examples times (classes + support size / 64), about
            what the `kernel` architecture needs for them.
        validation_shapes (`tuple[tuple[int, int], ...]`, *optional*):
            Support size and classes of the tasks to validate on; those beyond the end of the ramps are left out.
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
        """Tasks of one size and number of classes."""
        most = self.classes.at(step)
        two = most == 2 or chance(0.4, generator)
        classes = 2 if two else int(log_uniform(3, most + 1, generator))
        support = max(int(log_uniform(self.min_support, self.support.at(step) + 1, generator)), classes)
        return self._batch(support, classes, self._count(support, classes), generator)

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Shapes of two and of more classes, no larger than those of the training."""
        batches = []
        for support, classes in self.validation_shapes:
            if support <= self.support.end and classes <= self.classes.end:
                batches.append(self._batch(support, classes, self.validation_tasks, generator))
        return tuple(batches)

    def _count(self, support: int, classes: int) -> int:
        """Tasks of a step."""
        work = (support + self.query_size) * (classes + support / 64)
        return max(1, int(self.effort / work))

    def _batch(self, support: int, classes: int, count: int, generator: Generator) -> TrainingBatch:
        batch = draw_batch(count, support, self.query_size, classes, generator)
        return TrainingBatch(batch.embeddings, batch.labels, classes, support)


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
        """Sequences of the length and the number of dimensions that the step has reached."""
        x = randn(self.batch_size, self.points.at(step), self.dim, generator=generator)
        x[..., self.dims.at(step) :] = 0.0
        weights = self._weights(generator)
        labels = torch.bernoulli(torch.sigmoid(x @ weights)[..., 0], generator=generator).long()
        return TrainingBatch(x, labels, num_classes=2)

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Tasks of full width at a quarter of the longest support set, and at the longest, 32 queries each."""
        longest = self.points.end - 1
        batches = []
        for size in (longest // 4, longest):
            dims, points = Ramp(self.dim, self.dim, 0, 1), Ramp(size + 32, size + 32, 0, 1)
            batch = replace(self, dims=dims, points=points, batch_size=2 * self.batch_size).draw(0, generator)
            both = (batch.labels[:, :size] != batch.labels[:, :1]).any(1)
            batches.append(TrainingBatch(batch.embeddings[both], batch.labels[both], 2, support_size=size))
        return tuple(batches)

    def _weights(self, generator: Generator) -> Tensor:
        """(batch, dim, 1)."""
        weights = randn(self.batch_size, self.dim, 1, generator=generator)
        if not self.variable_alpha:
            return self.alpha * weights
        return weights * torch.randint(1, self.alpha + 1, (len(weights), 1, 1), generator=generator)


__all__ = ["PaperTasks", "RichTasks", "TaskSource", "TrainingBatch"]
