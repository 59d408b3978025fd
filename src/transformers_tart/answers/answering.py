"""Answers to the inputs of a call, window by window."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import logging

from transformers_tart.answers.explanation import explain_answers
from transformers_tart.answers.formats import AnswerFormat
from transformers_tart.answers.suggesting import Pool
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.hints.given import check_count
from transformers_tart.hints.single_labels import score_alone
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.support import PreparedSupport


logger = logging.get_logger(__name__)

DEFAULT_BATCH_SIZE = 32  # of the windows of inputs in memory, without a batch size
Place = tuple[str, Any]  # the place of an input, for messages, and the input


@dataclass(frozen=True)
class Answerer:
    """A model with the support set and the options of a call.

    Attributes:
        model: the model.
        processor: its tokenizer, image processor or feature extractor.
        support: the support set of the call.
        form: the format of the answers.
        options: options for reading texts.
        batcher: batches of the backbone.
        hints: hints of the user for the inputs, functions or tensors of the scores of all inputs by name.
        open_cache: returns the embedding cache, `None` for none.
        place: returns a context in which the model runs.
    """

    model: TartPreTrainedModel
    processor: Any
    support: PreparedSupport
    form: AnswerFormat
    options: TextOptions
    batcher: Batcher
    hints: Mapping[str, Any]
    open_cache: Callable[[], EmbeddingCache | None]
    place: Callable[[], AbstractContextManager]

    def answer_one(self, item: Any) -> Any:
        """Return the answer for one input, or raise the error of one that cannot be read."""
        check_count(self.hints, 1)
        rows = self.model.embedder(max_length=self.options.max_length).read_one(self.processor, item, self.options)
        return next(self._answer([("The input", item)], rows, 0))

    def answer_many(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield answers in the order of the inputs, which are read in windows; unreadable ones give their error."""
        start = 0
        for window, rows in self._windows(items):
            yield from self._answer(window, rows, start)
            start += len(window)
        check_count(self.hints, start)

    def _windows(self, items: Iterator[Any]) -> Iterator[tuple[list[Place], list[Any]]]:
        """Yield the places and the rows of inputs, in windows."""
        embedder = self.model.embedder(max_length=self.options.max_length)
        places = ((f"Input {i}", item) for i, item in enumerate(items))
        size = min(sys.maxsize, (self.batcher.max_rows or DEFAULT_BATCH_SIZE) * embedder.batches_per_window)
        for window in iter(lambda: list(itertools.islice(places, size)), []):
            yield window, embedder.read(self.processor, window, self.options)

    def suggest(self, items: Iterator[Any], most: int) -> list[dict[str, Any]]:
        """Return the inputs to label next; see [`Pool`]. Unreadable ones are left out."""
        self.support.support.check_single_label("Suggestions")
        pool, start = Pool(self.model.config.embedding_options.views), 0
        for window, rows in self._windows(items):
            readable = [i for i, row in enumerate(rows) if not isinstance(row, Unreadable)]
            numbers = [start + i for i in readable]
            if readable:
                given = self._score([window[i][1] for i in readable], numbers)
                found = self._embed([rows[i] for i in readable])
                with self.place():
                    pool.add(numbers, found, self.model.answer(found, self.support, given))
            start += len(window)
        check_count(self.hints, start)
        return pool.choose(self.support.support.embeddings, most)

    def explain(self, items: Sequence[Any], most: int) -> list[dict[str, Any]]:
        """Return an explanation of each answer, with the examples of most influence; see [`explain_answers`]."""
        check_count(self.hints, len(items))
        embedder = self.model.embedder(max_length=self.options.max_length)
        rows = [embedder.read_one(self.processor, item, self.options)[0] for item in items]
        if not rows:
            return []
        given = self._score(items, range(len(items)))
        found, names = self._embed(rows), [str(view.name) for view in embedder.views]
        with self.place():
            votes = self.model.explain(found, self.support, given)
        return explain_answers(votes, self.support.support, self.form.label_names, names, most)

    def _answer(self, places: Sequence[Place], rows: Sequence[Any], start: int) -> Iterator[Any]:
        """Yield the answers for a window of inputs, the first of them number `start`, and their rows."""
        readable = [i for i, row in enumerate(rows) if not isinstance(row, Unreadable)]
        if lost := len(rows) - len(readable):
            logger.error(f'{lost} of {len(rows)} inputs cannot be read; their results hold the reason under "error".')
        found: Iterator[tuple[Tensor, float | None]] = iter(())
        if readable:
            given = self._score([places[i][1] for i in readable], [start + i for i in readable])
            found = self._logits([rows[i] for i in readable], given)
        for (_, item), row in zip(places, rows, strict=True):
            if isinstance(row, Unreadable):
                yield self.form.write_error(item, row.error)
            else:
                yield self.form.write(item, *next(found))

    def _logits(self, rows: Sequence[Any], given: Tensor | None) -> Iterator[tuple[Tensor, float | None]]:
        """Return the logits (num_labels,) of each row, and how far it is out of scope where that is asked for."""
        found, scope = self._embed(rows), self.form.limits.scope
        with self.place():
            logits = self._answer_embedded(found, given)
            degrees = [None] * len(logits) if scope is None else scope.compare(found).tolist()
        return zip(logits, degrees, strict=True)

    def _answer_embedded(self, found: Tensor, given: Tensor | None) -> Tensor:
        """Return the logits (n, num_labels) of embeddings, or the log-odds of each label on its own."""
        hints = self.support.support.hints
        is_as_usual = not self.form.is_alone or self.support.support.is_multi_label
        if is_as_usual or hints is None or hints.num_labels == 1:
            return self.model.answer(found, self.support, given).cpu()
        scores = hints.join(hints.score(found), given)
        return score_alone(self.model.reasoner, scores, hints.calibration).cpu()

    def _embed(self, rows: Sequence[Any]) -> Tensor:
        """Return embeddings (n, layers of all views, hidden) of rows."""
        padding = getattr(self.processor, "pad_token_id", None)
        with self.place():
            embedder = self.model.embedder(self.open_cache(), self.options.max_length)
            return embedder.embed_rows(rows, self.support.reading, pad_token_id=padding, batcher=self.batcher)

    def _score(self, items: Sequence[Any], numbers: Sequence[int]) -> Tensor | None:
        """Return scores (n, num_given, num_labels) by the hints of the user of inputs, given with their numbers."""
        check_count(self.hints, numbers[-1] + 1, is_all=False)
        hints = {name: hint if callable(hint) else hint[list(numbers)] for name, hint in self.hints.items()}
        return self.support.score_given(items, hints)
