"""Synthetic tasks with several views of each example, and label hints: those from which the weighing is learned."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.training.priors.draws import chance, choose, log_uniform, uniform
from transformers_tart.training.priors.hints import draw_hints
from transformers_tart.training.priors.inputs import draw_inputs
from transformers_tart.training.priors.labels import label_weights
from transformers_tart.training.priors.views import draw_views
from transformers_tart.training.sources import TaskSource, TrainingBatch, stack_padded


# support sizes, numbers of classes, of views and of hints
VALIDATION_SHAPES = (
    (0, 2, 1, 2),
    (0, 6, 1, 2),
    (2, 2, 3, 1),
    (6, 6, 3, 2),
    (16, 2, 3, 0),
    (16, 2, 3, 1),
    (24, 6, 3, 2),
    (64, 4, 5, 0),
    (128, 2, 3, 1),
    (320, 20, 3, 2),
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a task."""

    support: int
    query: int
    classes: int
    views: int
    hints: int
    unlabeled: int


@dataclass(frozen=True)
class Task:
    """A task: n rows with labels, and m hints without."""

    views: list[Tensor]  # (n, width) each
    labels: Tensor  # (n,) int64
    hints: Tensor  # (n, H, C)
    unlabeled: Tensor  # (m, H, C)


def draw_task(shape: Shape, generator: Generator) -> Task:
    """Draw a task of several views and hints.

    The task begins with its support set, which is balanced most of the time.
    """
    size = shape.support + shape.query + shape.unlabeled
    spare = 2 * shape.support if chance(0.8, generator) else 0
    inputs = draw_inputs(size + spare, generator)
    latent, labels = choose(label_weights(shape.classes), generator)(inputs, shape.classes, generator)
    order = torch.arange(len(labels))
    if spare:
        first = classes_in_turn(labels[: shape.support + spare])[: shape.support]
        order = torch.cat([first, order[shape.support + spare :]])
    latent, labels = latent[order], labels[order]
    keep = shape.support + shape.query
    views = draw_views(latent * inputs.spread, labels, shape.views, generator)
    hints = torch.zeros(keep, 0, shape.classes), torch.zeros(shape.unlabeled, 0, shape.classes)
    if shape.hints:
        hints = draw_hints(latent, labels, shape.classes, shape.hints, shape.unlabeled, generator)
    return Task([view[:keep] for view in views], labels[:keep], *hints)


def draw_batch(count: int, shape: Shape, generator: Generator) -> TrainingBatch:
    """Draw tasks of one shape, zero-padded to one width, each with at least two classes in its support set."""
    tasks: list[Task] = []
    while len(tasks) < count:
        task = draw_task(shape, generator)
        labels = task.labels[: shape.support]
        if shape.support == 0 or (labels != labels[0]).any():
            tasks.append(task)
    first, *others = [stack_padded([task.views[i] for task in tasks]) for i in range(shape.views)]
    labels = torch.stack([task.labels for task in tasks])
    hints = torch.stack([task.hints for task in tasks]) if shape.hints else None
    unlabeled = torch.stack([task.unlabeled for task in tasks]) if shape.hints else None
    return TrainingBatch(first, labels, shape.classes, shape.support, tuple(others), hints, unlabeled)


@dataclass(frozen=True)
class EvidenceTasks(TaskSource):
    """Tasks with views and hints. The examples of each class are log-uniform in number, and there may be none at all.

    A step has as many tasks as `effort` allows, about in proportion to the cost of the `kernel` architecture.
    """

    max_support: int = 512
    max_classes: int = 80
    max_views: int = 6
    max_hints: int = 3
    max_unlabeled: int = 64
    query_size: int = 48
    effort: int = 12_000
    max_tasks: int = 48  # of a step
    without_examples: float = 0.1  # share of the steps
    validation_shapes: tuple[tuple[int, int, int, int], ...] = VALIDATION_SHAPES
    validation_tasks: int = 96  # of each shape

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        """Draw tasks of one shape."""
        classes = 2 if chance(0.4, generator) else int(log_uniform(3, self.max_classes + 1, generator))
        hints = int(uniform(0, self.max_hints + 1, generator))
        views = int(uniform(1 if hints else 2, self.max_views + 1, generator))
        each = int(log_uniform(1, 65, generator))
        support = min(each * classes, self.max_support)
        if hints and chance(self.without_examples, generator):
            support = 0
        unlabeled = int(log_uniform(4, self.max_unlabeled + 1, generator)) if chance(0.5, generator) else 0
        cost = (support + self.query_size) * (classes + support / 64) * views
        count = max(1, min(self.max_tasks, int(self.effort / cost)))
        return draw_batch(count, Shape(support, self.query_size, classes, views, hints, unlabeled), generator)

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """Draw tasks of fixed shapes."""
        return tuple(
            draw_batch(
                max(1, min(self.validation_tasks, 6000 // (support + classes * 8))),
                Shape(support, self.query_size, classes, views, hints, 8 if support == 0 else 0),
                generator,
            )
            for support, classes, views, hints in self.validation_shapes
        )
