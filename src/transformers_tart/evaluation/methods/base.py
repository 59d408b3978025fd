"""What every method is given: a task, a support set, and what is loaded and computed once for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from transformers_tart.backbones import locate
from transformers_tart.embeddings import encode_texts
from transformers_tart.evaluation.prompting import can_be_prompted
from transformers_tart.evaluation.tasks import Task
from transformers_tart.examples import Text
from transformers_tart.modeling_reasoner import TartReasoner
from transformers_tart.projection import LayerScaling


BLOCK = 32


@dataclass(frozen=True)
class Models:
    r"""
    A backbone and a reasoner, loaded when a method first asks for them.

    Args:
        name (`str`):
            Hub id or folder of the backbone, or `"mini"`.
        revision (`str`, *optional*):
            Of its repository.
        reasoner (`str`, *optional*, defaults to `"kernel"`):
            As [`TartReasoner.from_pretrained`] takes it.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Precision of the backbone.
        device (`torch.device`, *optional*, defaults to the CPU):
            Where everything runs.
        batch_size (`int`, *optional*):
            Most texts of a forward pass.
        max_length (`int`, *optional*):
            Longest text in tokens.
    """

    name: str
    revision: str | None = None
    reasoner_name: str = "kernel"
    dtype: str = "auto"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None
    max_length: int | None = None

    @property
    def title(self) -> str:
        """The name without the folders above it."""
        return Path(self.name).name if Path(self.name).exists() else self.name

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The backbone's config."""
        path, revision = locate(self.name, self.revision)
        return AutoConfig.from_pretrained(path, revision=revision)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        path, revision = locate(self.name, self.revision)
        return AutoTokenizer.from_pretrained(path, revision=revision)

    @cached_property
    def language_model(self) -> PreTrainedModel:
        """The backbone with its vocabulary head.

        Raises:
            ValueError: When it has none.
        """
        if not can_be_prompted(self.config):
            raise ValueError(
                f"{self.title} is no causal language model with a vocabulary head: it cannot be prompted."
            )
        return self.load(AutoModelForCausalLM)

    @cached_property
    def backbone(self) -> PreTrainedModel:
        """The frozen backbone: the same weights as the language model's, where it is one."""
        if can_be_prompted(self.config):
            return self.language_model.base_model  # type: ignore[return-value]
        return self.load(AutoModel)

    @cached_property
    def reasoner(self) -> TartReasoner:
        """The reasoner, in evaluation mode."""
        return TartReasoner.from_pretrained(self.reasoner_name).to(self.device).eval()

    def load(self, auto_class: Any, **options: Any) -> PreTrainedModel:
        """Load the backbone anew, through any Auto class, in evaluation mode."""
        path, revision = locate(self.name, self.revision)
        dtype = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
        return auto_class.from_pretrained(path, revision=revision, dtype=dtype, **options).to(self.device).eval()


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
        """Texts that are classified."""
        return self.task.test_texts

    def texts(self, support: Support) -> list[Text]:
        """Texts of a support set."""
        return [self.task.train_texts[i] for i in support.indices]

    def labels(self, support: Support) -> Tensor:
        """Labels (k,) int64 of a support set."""
        return torch.tensor([self.task.train_labels[i] for i in support.indices])

    @property
    def saved_seconds(self) -> float:
        """What methods have not spent so far because others before them had embedded the same texts."""
        return sum(self._saved)

    def embeddings(self, support: Support) -> tuple[Tensor, Tensor]:
        """Embeddings (k, dim) of a support set and (n, dim) of the test texts, float32 on the CPU: each text alone,
        every layer centred and scaled by the support set, side by side."""
        order = (*support.indices, *support.more)
        blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
        train = self.task.train_texts
        rows = torch.cat([self._embed_once(block, [train[i] for i in block]) for block in blocks])
        scaling = LayerScaling.fit(rows[: len(support.indices)])
        tests = self._embed_once((), self.test_texts)
        return scaling.transform(rows[: len(support.indices)]), scaling.transform(tests)

    def _embed_once(self, key: tuple[int, ...], texts: Sequence[Text]) -> Tensor:
        """Embeddings of the test texts, whose key is empty, or of a block of training texts."""
        if key in self._found:
            self._saved.append(self._seconds[key])
        else:
            start = time.perf_counter()
            self._found[key] = self._embed(texts)
            self._seconds[key] = time.perf_counter() - start
        return self._found[key]

    def _embed(self, texts: Sequence[Text]) -> Tensor:
        models = self.models
        options = {"layers": "all", "batch_size": models.batch_size, "max_length": models.max_length}
        return encode_texts(models.backbone, models.tokenizer, texts, **options).cpu()  # type: ignore[arg-type]


# Probabilities (n, classes) float64 on the CPU of the test texts, by a support set.
Method = Callable[[TaskContext, Support], Tensor]

__all__ = ["Method", "Models", "Support", "TaskContext"]
