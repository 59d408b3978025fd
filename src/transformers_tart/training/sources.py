"""Synthetic tasks, from which alone a reasoner learns: the rich prior, and the family of the TART paper.

Every draw comes from the generator that is passed in, so the same seed gives the same tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.training.priors.draws import chance, choose, log_uniform
from transformers_tart.training.priors.inputs import draw_inputs
from transformers_tart.training.priors.labels import label_weights
from transformers_tart.training.priors.views import PRESENTATIONS


# support sizes and numbers of classes
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
    """The tasks of a step: a support set and queries each, or sequences in which every example is a query in turn."""

    embeddings: Tensor  # (tasks, n, dim) float32
    labels: Tensor  # (tasks, n) int64 from 0
    num_classes: int
    support_size: int | None = None  # leading rows that are the support set of each task; `None` for sequences
    other_views: tuple[Tensor, ...] = ()  # (tasks, n, dim) float32 each, beside `embeddings`
    hints: Tensor | None = None  # (tasks, n, hints, num_classes) float32
    unlabeled_hints: Tensor | None = None  # (tasks, m, hints, num_classes) float32

    @property
    def views(self) -> tuple[Tensor, ...]:
        """The embeddings of each view."""
        return self.embeddings, *self.other_views

    def __len__(self) -> int:
        return len(self.labels)

    def share(self, index: int, count: int) -> "TrainingBatch":
        """Return every `count`-th task from the `index`-th on: the share of one of `count` processes."""
        mine = slice(index, None, count)
        return self._map(lambda tensor: tensor[mine])

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """Move the tasks to another device."""
        return self._map(lambda tensor: tensor.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "TrainingBatch":
        hints = (None if each is None else change(each) for each in (self.hints, self.unlabeled_hints))
        views = tuple(change(view) for view in self.other_views)
        return TrainingBatch(
            change(self.embeddings), change(self.labels), self.num_classes, self.support_size, views, *hints
        )


def draw_task(size: int, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw one task of the rich prior: embeddings (size, dim) of random width, and labels (size,)."""
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
    embeddings = stack_padded([rows for rows, _ in tasks])
    return TrainingBatch(embeddings, torch.stack([labels for _, labels in tasks]), classes, support_size)


def stack_padded(embeddings: Sequence[Tensor]) -> Tensor:
    """Stack embeddings (n, dim) of tasks, zero-padded to one width."""
    width = max(each.shape[1] for each in embeddings)
    return torch.stack([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in embeddings])


@dataclass(frozen=True)
class TaskSource(ABC):
    """A distribution of tasks; its fields are recorded with a run."""

    on_device: ClassVar[bool] = False  # whether a generator of an accelerator draws there

    @abstractmethod
    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw the tasks of a step, counted from 0."""

    @abstractmethod
    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Draw tasks with a support set to validate on, one batch for each shape, at full difficulty."""


@dataclass(frozen=True)
class RichTasks(TaskSource):
    """Tasks of the rich prior. Their sizes are log-uniform and at least the number of classes.

    40% of the steps have two classes, the others a log-uniform number. A step has as many tasks as `effort` allows:
    examples times (classes + support size / 64), about proportional to the cost of the `kernel` architecture.
    """

    support: Ramp = Ramp(start=128, end=1024, increment=128, interval=120)  # largest support set
    classes: Ramp = Ramp(start=10, end=100, increment=15, interval=120)  # most classes
    min_support: int = 4
    query_size: int = 64
    effort: int = 20_000
    validation_shapes: tuple[tuple[int, int], ...] = VALIDATION_SHAPES  # those beyond the ramps are left out
    validation_tasks: int = 16  # of each shape

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
    """The family of arXiv 2306.07536 (section 4.1): x ~ N(0, I), w ~ alpha N(0, I), y ~ Bernoulli(sigmoid(w·x))."""

    on_device: ClassVar[bool] = True

    dims: Ramp  # coordinates of x in use; the others are 0
    points: Ramp  # examples of a sequence
    dim: int = 16  # width of x
    alpha: int = 10  # the larger, the less noise in the labels
    variable_alpha: bool = False  # a scale for each task, an integer from 1 to `alpha`
    batch_size: int = 128  # sequences of a step

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw sequences of the length and the number of dimensions that the step has reached."""
        shape = self.batch_size, self.points.at(step), self.dim
        x = torch.randn(shape, generator=generator, device=generator.device)
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
        device = generator.device
        weights = torch.randn(self.batch_size, self.dim, 1, generator=generator, device=device)
        if not self.variable_alpha:
            return self.alpha * weights
        return weights * torch.randint(1, self.alpha + 1, (len(weights), 1, 1), generator=generator, device=device)


class TaskStream:
    """A stream of tasks that draws those of the next step in the background; the order of the draws is fixed."""

    def __init__(self, tasks: TaskSource, step: int, random_state: Tensor, device: torch.device | str = "cpu"):
        self.tasks, self.generator = tasks, Generator(device)
        self.generator.set_state(random_state)
        self.worker = ThreadPoolExecutor(1, "tasks")
        self.step, self.pending = step, self._submit(step)

    def take(self) -> tuple[TrainingBatch, Tensor]:
        """Return the tasks of the next step, and the state of the generator after them."""
        drawn = self.pending.result()
        self.step += 1
        self.pending = self._submit(self.step)
        return drawn

    def close(self) -> None:
        """Wait for the draw in progress."""
        self.worker.shutdown(wait=True, cancel_futures=True)

    def _submit(self, step: int) -> Future[tuple[TrainingBatch, Tensor]]:
        return self.worker.submit(lambda: (self.tasks.draw(step, self.generator), self.generator.get_state()))
