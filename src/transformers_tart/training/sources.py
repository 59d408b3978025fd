"""Where the tasks of a training step come from: the rich prior of `tasks.py`, or the family of the paper."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from transformers_tart.training.curriculum import Ramp
from transformers_tart.training.tasks import chance, draw_batch, log_uniform, randn


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


@dataclass(frozen=True)
class RichTasks(TaskSource):
    r"""
    Tasks of the rich prior, of random sizes and numbers of classes.

    Args:
        examples_per_step (`int`, *optional*, defaults to 4500):
            Support and query examples of a step, divided by half the number of classes; decides the number of tasks.
        min_support (`int`, *optional*, defaults to 6), max_support (`int`, *optional*, defaults to 300):
            Support sizes are log-uniform between these, and at least twice the number of classes.
        query_size (`int`, *optional*, defaults to 32):
            Queries of a task.
        max_classes (`int`, *optional*, defaults to 40):
            Two classes in 40% of the steps, else 3 to this many, log-uniform.
    """

    examples_per_step: int = 4500
    min_support: int = 6
    max_support: int = 300
    query_size: int = 32
    max_classes: int = 40

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Tasks of one size and number of classes."""
        two = self.max_classes == 2 or chance(0.4, generator)
        classes = 2 if two else int(log_uniform(3, self.max_classes + 1, generator))
        support = max(int(log_uniform(self.min_support, self.max_support + 1, generator)), 2 * classes)
        rows = (support + self.query_size) * max(1.0, classes / 2)
        batch_size = max(2, int(self.examples_per_step / rows))
        batch = draw_batch(batch_size, support, self.query_size, classes, generator)
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

    def _weights(self, generator: Generator) -> Tensor:
        """(batch, dim, 1)."""
        weights = randn(self.batch_size, self.dim, 1, generator=generator)
        if not self.variable_alpha:
            return self.alpha * weights
        return weights * torch.randint(1, self.alpha + 1, (self.batch_size, 1, 1), generator=generator)


__all__ = ["PaperTasks", "RichTasks", "TaskSource", "TrainingBatch"]
