"""The arguments of every method: a task with its composed model and shared embeddings, and a support set."""

import random
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor

from transformers_tart.backbones.forward import input_device
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.tasks import Item, Task
from transformers_tart.hints.requests import choose_texts, parse_request
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.texts import Text
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.projection import LayerScaling
from transformers_tart.support import SupportSet


BLOCK = 32


def read_clocks() -> np.ndarray:
    """Return the seconds (2,) of the clock and of the CPUs of this process, of which differences have a meaning."""
    return np.array([time.perf_counter(), time.process_time()])


@dataclass(frozen=True)
class Support:
    """A support set of a task.

    `more` are the indices that a larger support set of the same seed continues with. Texts are embedded in blocks of
    `BLOCK`, filled up with these, so that an embedding is the same to the last bit whatever was measured before.
    """

    indices: tuple[int, ...]  # of k training texts, in the order of a prompt
    seed: int  # of the draw, and of a method that is random
    more: tuple[int, ...] = ()

    @classmethod
    def draw(cls, task: Task, k: int, seed: int, sampling: str = "balanced") -> "Support":
        """Draw k examples of a task."""
        if k == 0:
            return cls((), seed)
        filled = min(-(-k // BLOCK) * BLOCK, len(task.train_texts))
        chosen = task.draw_support(k, seed, sampling)
        return cls(tuple(chosen), seed, tuple(task.draw_support(max(filled, k), seed, sampling)[k:]))


@dataclass(frozen=True)
class EmbeddedInputs:
    """Embeddings of a support set and of the test inputs of a task, as a composed model reads them."""

    model: TartPreTrainedModel
    support: SupportSet  # on the CPU
    order: list[int]  # place of each example in the drawn support set, which a prompt reorders and may hold in part
    queries: Tensor  # (n, layers, hidden) float32 on the CPU
    reading: Reading | None = None  # what the backbone keeps of the prompt of the support set, if it has one

    def features(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings (k, dim) and (n, dim), with layers centered and scaled as for the reasoner."""
        scaling = LayerScaling.fit(self.support.embeddings)
        return scaling.transform(self.support.embeddings), scaling.transform(self.queries)


class TaskContext:
    """A task, its composed model, and embeddings that are computed once for all methods."""

    def __init__(self, task: Task, models: Models):
        self.task, self.models = task, models
        # seconds of the clock and of the CPUs, of methods for which others before them had embedded the same inputs
        self.saved = np.zeros(2)
        self._embedded: dict[Hashable, tuple[Any, np.ndarray]] = {}  # with the seconds that each took
        self._in_prompts: dict[Hashable, tuple[Any, np.ndarray]] = {}  # of the latest support set alone

    @property
    def model(self) -> TartPreTrainedModel:
        """The composed model for the inputs of the task."""
        return self.models.model(self.task.modality)

    @property
    def test_texts(self) -> list[Text]:
        """Texts to classify; a ValueError where the task has images or audio."""
        return self._check_texts(self.task.test_texts)

    def texts(self, support: Support) -> list[Text]:
        """Return the texts of a support set, or raise a ValueError where the task has images or audio."""
        return self._check_texts([self.task.train_texts[i] for i in support.indices])

    def _check_texts(self, items: list[Any]) -> list[Text]:
        if any(isinstance(item, bytes) for item in items):
            raise ValueError(f"{self.task.name} has {self.task.noun}, and this method reads texts.")
        return items

    def labels(self, support: Support) -> Tensor:
        """Return the labels (k,) int64 of a support set."""
        return torch.tensor([self.task.train_labels[i] for i in support.indices], dtype=torch.int64)

    def embed(self, support: Support, protocol: str | None = None, hints: str | None = None) -> EmbeddedInputs:
        """Embed a support set and the test inputs by the model, with its own protocol or another.

        Label hints are part of the support set where `hints` asks for them, and the model can give them.
        """
        model = self.models.model(self.task.modality, protocol)
        if not model.config.embedding_options.has_prompt:
            return self._embed_alone(model, support, hints)
        return self.read_prompts(model.config.protocol, support, partial(self._embed_in_prompt, model, support))

    def read_prompts(self, kind: str, support: Support, read: Callable[[], Any]) -> Any:
        """Return what is read in prompts of a support set, once for all methods that follow one another."""
        if (kind, support) not in self._in_prompts:
            self._in_prompts.clear()
        return self._once(self._in_prompts, (kind, support), read)

    def embeddings(self, support: Support) -> tuple[Tensor, Tensor]:
        """Return the features (k, dim) of a support set, in the order of its indices, and (n, dim) of the tests."""
        embedded, k = self.embed(support), len(support.indices)
        if len(embedded.order) < k:
            raise ValueError(f"The prompt holds {len(embedded.order)} of the {k} examples; take a smaller k.")
        known, queries = embedded.features()
        return known[torch.tensor(embedded.order).argsort()], queries

    def layers(self, support: Support) -> tuple[Tensor, Tensor]:
        """Return [`embeddings`] with the layers of all views apart: (k, layers, hidden) and (n, layers, hidden)."""
        count = self.embed(support).support.embeddings.shape[1]
        known, queries = self.embeddings(support)
        return known.unflatten(1, (count, -1)), queries.unflatten(1, (count, -1))

    def _embed_alone(self, model: TartPreTrainedModel, support: Support, hints: str | None) -> EmbeddedInputs:
        """Embed each input alone, once for all support sets that share it."""

        def embed(items: Sequence[Item]) -> Tensor:
            return self._embed_examples(model, Examples(list(items), [0] * len(items), ()), support).embeddings.cpu()

        order, train = (*support.indices, *support.more), self.task.train_texts
        blocks = [order[start : start + BLOCK] for start in range(0, len(order), BLOCK)]
        rows = [self._once(self._embedded, block, partial(embed, [train[i] for i in block])) for block in blocks]
        queries = self._once(self._embedded, "tests", partial(embed, self.task.test_texts))
        known = torch.cat([*rows, queries[:0]])[: len(support.indices)]
        given = self._hints(model, hints)
        if not given and not support.indices:
            raise ValueError(
                f"Without examples, the model answers by the names of the classes; those of {self.task.name} give it "
                "no hint. Name the classes, or take another k."
            )
        embedded = SupportSet(known, self.labels(support), self.task.label_names, **given)
        return EmbeddedInputs(model, embedded, list(range(len(known))), queries)

    def _hints(self, model: TartPreTrainedModel, hints: str | None) -> dict[str, Any]:
        """Return the label hints of the classes as an argument of [`SupportSet`]; none where there are none."""
        names, options = self.task.label_names, model.config.embedding_options
        request = parse_request(hints, names, "{}")
        if choose_texts(request, names, model.config.modality, options, model.reasoner.reads_hints) is None:
            return {}
        processor, size = self.models.processor(self.task.modality), self.models.batch_size
        encode = partial(model.encode_support, None, processor, hints=hints, candidate_labels=names, batch_size=size)
        return {"hints": self._once(self._embedded, ("hints", hints), encode).hints}

    def _embed_in_prompt(self, model: TartPreTrainedModel, support: Support) -> EmbeddedInputs:
        """Embed a support set in a prompt, and the test inputs after it."""
        labels, names = self.labels(support), self.task.label_names
        found = self._embed_examples(model, Examples(self.texts(support), labels.tolist(), names), support)
        embedder, tokenizer = model.embedder(), self.models.tokenizer
        rows = embedder.tokenize(tokenizer, self.test_texts)
        batcher, padding = Batcher.on(input_device(model.backbone), self.models.batch_size), tokenizer.pad_token_id
        queries = embedder.embed_rows(rows, found.reading, pad_token_id=padding, batcher=batcher)
        embedded = SupportSet(
            found.embeddings.cpu(), labels[found.order], names, prompt=found.reading.prefixes[0].prompt
        )
        return EmbeddedInputs(model, embedded, found.order, queries.cpu(), found.reading)

    def _embed_examples(self, model: TartPreTrainedModel, examples: Examples, support: Support) -> Any:
        processor, size = self.models.processor(self.task.modality), self.models.batch_size
        return model.embedder().embed_examples(examples, processor, batch_size=size, seed=support.seed)

    def _once(self, found: dict[Hashable, tuple[Any, np.ndarray]], key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return what was computed before under a key, and count its seconds as saved; or compute it now."""
        if key in found:
            self.saved = self.saved + found[key][1]
        else:
            start = read_clocks()
            found[key] = compute(), read_clocks() - start
        return found[key][0]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all random generators inside the block, and restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


# Probabilities (n, classes) float64 on the CPU of the test inputs, by a support set.
Method = Callable[[TaskContext, Support], Tensor]
