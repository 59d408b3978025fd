"""Fitted parts of an estimator: a reasoner that has read a matrix, or a support set of inputs with its backbone."""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transformers_tart.answers.answering import Answerer
from transformers_tart.answers.formats import AnswerFormat
from transformers_tart.backbones.forward import input_device
from transformers_tart.backbones.reference import choose_processor
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache, MemoryCache
from transformers_tart.hints.given import functions_of
from transformers_tart.hints.requests import parse_request
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.text_options import DEFAULT_HYPOTHESIS, TextOptions
from transformers_tart.inputs.texts import parse_text
from transformers_tart.loading.embedded import EMBEDDED
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.modeling_tart import compose_any, load_any
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.reasoners.state import ReasonerState
from transformers_tart.repository import DEFAULT_REASONER
from transformers_tart.support import PreparedSupport, SupportSet


MEMORY = "memory"
ROWS = 1024  # of a matrix that are answered at a time
BASE = ("backbone", "dtype", "device")  # parameters on which the weights of a backbone depend
PROCESSORS = ("tokenizer", "image_processor", "feature_extractor")


@dataclass(frozen=True)
class MatrixTask:
    """A reasoner, and its state of the rows of a matrix."""

    reasoner: TartReasoner
    state: ReasonerState

    @classmethod
    def fit(
        cls, reasoner: TartReasoner, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, num_labels: int
    ) -> "MatrixTask":
        """Read rows (n, d), labels (n,) and weights (n,)."""
        given = None if weights is None else reasoner_tensor(reasoner, weights)[None]
        targets = torch.from_numpy(labels).to(reasoner.device)[None]
        with torch.no_grad():
            state = reasoner.prepare(
                reasoner_tensor(reasoner, rows)[None], targets, num_labels=num_labels, support_weights=given
            )
        return cls(reasoner, state)

    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Return logits (n, num_labels) of rows (n, d)."""
        chunks = reasoner_tensor(self.reasoner, rows).split(ROWS)
        with torch.no_grad():
            found = [self.reasoner.query(self.state, chunk[None])[0].double().cpu() for chunk in chunks]
        return torch.cat(found).numpy()


def reasoner_tensor(reasoner: TartReasoner, values: np.ndarray) -> Tensor:
    """Return values as a tensor on the device and in the dtype of a reasoner."""
    return torch.tensor(values, dtype=reasoner.dtype, device=reasoner.device)


@dataclass(frozen=True)
class Loaded:
    """A composed model, its processor, and where its embeddings are kept."""

    model: TartPreTrainedModel
    processor: Any
    memory: MemoryCache
    cache: EmbeddingCache | None

    def place(self) -> AbstractContextManager:
        """Return a context in which the model runs."""
        return torch.no_grad()

    def on(self, other: "Loaded") -> "Loaded":
        """Return the same with the backbone of another, if it has the same weights, so that there is one in memory."""
        if other.model.backbone_digest().differences(self.model.backbone_digest()):
            return self
        self.model.backbone = other.model.backbone
        return replace(self, memory=other.memory, cache=other.memory if self.cache is self.memory else self.cache)


class Shared:
    """The embeddings and the models that an estimator and its clones share in a process.

    The models are those of the backbone that was used last, with its weights once.
    """

    def __init__(self) -> None:
        self.entries: dict[bytes, Tensor] = {}
        self._lock = threading.RLock()
        self._base: list[Any] = []
        self._models: list[tuple[Any, Any]] = []

    def load(self, settings: Mapping[str, Any]) -> Loaded:
        """Load the backbone of these settings."""
        base = [settings[name] for name in BASE]
        return self._find(base, dict(settings), load_backbone, settings, self.entries)

    def reasoner(self, *source: Any) -> TartReasoner:
        """Load a reasoner, given its source, dtype and device; one that is loaded is copied."""
        return self._find([TartReasoner], list(source), _load_reasoner, *source)

    def _find(self, base: list[Any], key: Any, load: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            if self._base != base:
                self._base, self._models = base, []
            for other, model in self._models:
                if other == key:
                    return model
            found = load(*arguments)
            if self._models and isinstance(found, Loaded):
                found = found.on(self._models[0][1])
            self._models.append((key, found))
            return found


def _load_reasoner(source: Any, dtype: torch.dtype, device: Any) -> TartReasoner:
    if isinstance(source, TartReasoner):
        found: Any = copy.deepcopy(source)
    else:
        found = TartReasoner.from_pretrained(DEFAULT_REASONER if source is None else source)
    return found.to(dtype=dtype, device=device or "cpu").eval()


def load_backbone(settings: Mapping[str, Any], entries: dict[bytes, Tensor]) -> Loaded:
    """Load a backbone or a task by its name, or compose one that is loaded already."""
    given = {name: value for name, value in settings.items() if value is not None}
    backbone, device = given.pop("backbone"), given.pop("device", None)
    folder, processor = given.pop("embedding_cache", None), given.pop("processor", None)
    if isinstance(backbone, TartPreTrainedModel):
        if given:
            raise ValueError(f"The backbone is a composed model, to which {sorted(given)} cannot be applied.")
        model = backbone
    elif hasattr(backbone, "parameters"):
        model = compose_any(backbone, **given)
    else:
        if device is None:
            device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        model = load_any(str(EMBEDDED.get(backbone, backbone)), device=device, **given)
    if device is not None:
        model.to(device)
    argument = model.config.modality.processor_argument
    chosen = choose_processor(model, {**dict.fromkeys(PROCESSORS), argument: processor})[argument]
    memory = MemoryCache(model.backbone, entries)
    cache = memory if folder == MEMORY else None if folder is None else EmbeddingCache(folder, model.backbone)
    return Loaded(model, chosen, memory, cache)


@dataclass(frozen=True)
class _LogitFormat(AnswerFormat):
    """Logits in place of answers."""

    def write(self, item: Any, logits: Tensor, out_of_scope: float | None = None) -> Any:
        """Return the logits (C,) of an input."""
        return logits

    def write_error(self, item: Any, error: Exception) -> Any:
        """Raise the error of an input that cannot be read."""
        raise error


@dataclass(frozen=True)
class InputTask:
    """A support set of texts, images or audio; the backbone is left out of pickles, and loaded again."""

    prepared: PreparedSupport | SupportSet
    entries: dict[bytes, Tensor] = field(default_factory=dict)  # embeddings of the examples and labels

    @classmethod
    def fit(
        cls, loaded: Loaded, examples: Examples, known: dict[bytes, Tensor], batch_size: int | None, **classes: Any
    ) -> "InputTask":
        """Embed examples that are not known, and read them; `classes` are arguments about the classes."""
        entries: dict[bytes, Tensor] = {}
        if loaded.model.config.modality.is_tokenized:
            texts = [parse_text(item, f"Input {i}") for i, item in enumerate(examples.inputs)]
            examples = replace(examples, inputs=texts)
        cache = loaded.memory.over(entries, known, loaded.cache)
        with loaded.place():
            prepared = loaded.model.prepare_examples(
                examples, loaded.processor, cache=cache, batch_size=batch_size, **classes
            )
        return cls(prepared, entries)

    def logits(self, loaded: Loaded, inputs: Sequence[Any], hints: Any, batch_size: int | None) -> np.ndarray:
        """Return logits (n, num_labels) of inputs."""
        model = loaded.model
        with loaded.place():
            prepared = model.prepare_support(self.prepared)
        functions = functions_of(parse_request(hints, prepared.support.label_names, DEFAULT_HYPOTHESIS).given)
        form = _LogitFormat(prepared.support.label_names)
        batcher = Batcher.on(input_device(model.backbone), batch_size)
        answerer = Answerer(
            model,
            loaded.processor,
            prepared,
            form,
            TextOptions(),
            batcher,
            functions,
            lambda: loaded.cache,
            loaded.place,
        )
        return torch.stack(list(answerer.answer_many(iter(inputs)))).double().numpy()

    def __getstate__(self) -> dict[str, Any]:
        support = self.prepared.support if isinstance(self.prepared, PreparedSupport) else self.prepared
        if support.digest is not None:  # the pickle of a part of a tensor holds all of it
            samples = {name: values.clone() for name, values in support.digest.samples.items()}
            support = replace(support, digest=replace(support.digest, samples=samples))
        return {**vars(self), "prepared": support.to("cpu")}


__all__ = ["MEMORY", "InputTask", "Loaded", "MatrixTask", "Shared"]
