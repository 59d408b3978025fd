"""What every method is given: a task, a support set, and what is computed once for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.tasks import MODALITIES, Item, Task
from transformers_tart.inputs.examples import Text
from transformers_tart.projection import LayerScaling


BLOCK = 32


@dataclass(frozen=True)
class Support:
    """A support set of a task.

    Attributes:
        indices: k indices of training texts, in the order of a prompt.
        seed: with which it was drawn; a method that is random takes its own from it.
        more: indices that a larger support set of the same seed goes on with. Texts are embedded in blocks of
            `BLOCK`, filled up with these, so that an embedding is the same to the last bit whatever was measured
            before.
    """

    indices: tuple[int, ...]
    seed: int
    more: tuple[int, ...] = ()

    @classmethod
    def draw(cls, task: Task, k: int, seed: int, sampling: str = "balanced") -> "Support":
        """Draw k examples of a task."""
        filled = min(-(-k // BLOCK) * BLOCK, len(task.train_texts))
        chosen = task.draw_support(k, seed, sampling)
        return cls(tuple(chosen), seed, tuple(task.draw_support(max(filled, k), seed, sampling)[k:]))


@dataclass(frozen=True)
class TaskContext:
    """A task, the models, and the embeddings of the task's texts, which are computed once.

    Attributes:
        task: the task.
        models: what is measured.
        test_texts: as the task has them.
    """

    task: Task
    models: Models
    _found: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    _seconds: dict[tuple[int, ...], float] = field(default_factory=dict, repr=False)
    _saved: list[float] = field(default_factory=list, repr=False)

    @property
    def test_texts(self) -> list[Text]:
        """Texts that are classified.

        Raises:
            ValueError: When the task has images or audio.
        """
        return self._as_texts(self.task.test_texts)

    def texts(self, support: Support) -> list[Text]:
        """Texts of a support set.

        Raises:
            ValueError: When the task has images or audio.
        """
        return self._as_texts([self.task.train_texts[i] for i in support.indices])

    def _as_texts(self, items: Sequence[Item]) -> list[Text]:
        if self.task.modality != "text":
            raise ValueError(f"{self.task.name} has {MODALITIES[self.task.modality]}, and this method reads texts.")
        return list(items)  # type: ignore[arg-type]

    def labels(self, support: Support) -> Tensor:
        """Labels (k,) int64 of a support set."""
        return torch.tensor([self.task.train_labels[i] for i in support.indices])

    @property
    def saved_seconds(self) -> float:
        """What methods have not spent so far because others before them had embedded the same texts."""
        return sum(self._saved)

    def embeddings(self, support: Support) -> tuple[Tensor, Tensor]:
        """Embeddings (k, dim) of a support set and (n, dim) of the test texts, float32 on the CPU: each text alone,
        every layer centered and scaled by the support set, side by side."""
        order = (*support.indices, *support.more)
        blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
        train = self.task.train_texts
        rows = torch.cat([self._embed_once(block, [train[i] for i in block]) for block in blocks])
        scaling = LayerScaling.fit(rows[: len(support.indices)])
        tests = self._embed_once((), self.task.test_texts)
        return scaling.transform(rows[: len(support.indices)]), scaling.transform(tests)

    def _embed_once(self, key: tuple[int, ...], items: Sequence[Item]) -> Tensor:
        """Embeddings of what is classified, whose key is empty, or of a block of the training split."""
        if key in self._found:
            self._saved.append(self._seconds[key])
        else:
            start = time.perf_counter()
            self._found[key] = self.models.embed(items, self.task.modality)
            self._seconds[key] = time.perf_counter() - start
        return self._found[key]


# Probabilities (n, classes) float64 on the CPU of the test texts, by a support set.
Method = Callable[[TaskContext, Support], Tensor]

__all__ = ["Method", "Support", "TaskContext"]
