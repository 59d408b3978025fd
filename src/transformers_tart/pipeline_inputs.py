"""What pipelines read: which inputs are one and which are many, and how each becomes a row for the backbone."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from torch.profiler import record_function

from transformers_tart.backbones.forward import resolve_max_length
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.embeddings.text import Embedder
from transformers_tart.inputs.examples import Text, parse_text
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.inputs.tokenization import tokenize


class Unreadable(NamedTuple):
    """An input that could not be read, and why."""

    error: Exception


class Inputs(Protocol):
    """One kind of input.

    Attributes:
        name: what one of them is called.
        batches_per_window: batches whose inputs are in memory at a time.
    """

    name: str
    batches_per_window: int

    def is_one(self, inputs: Any) -> bool:
        """Whether these are one input rather than many.

        Raises:
            TypeError: When they are neither.
        """

    def rows(self, items: Sequence[tuple[str, Any]]) -> list[Any]:
        """Rows for the backbone, or [`Unreadable`], of inputs and their places."""


class TextInputs:
    """Texts and text pairs, which are sorted by length in large windows; what is no text stops the call."""

    name = "text"
    batches_per_window = 32

    def __init__(self, embedder: Embedder, tokenizer: Any, options: TextOptions):
        self.embedder, self.tokenizer, self.options = embedder, tokenizer, options

    def is_one(self, inputs: Any) -> bool:
        """See [`Modality.is_one`]."""
        return self.embedder.config.modality.is_one(inputs)

    def rows(self, items: Sequence[tuple[str, Any]]) -> list[Any]:
        """Token ids of each text."""
        texts = [parse_text(item, where) for where, item in items]
        for (where, _), text in zip(items, texts, strict=True):
            if self.options.single is not None and not isinstance(text, str):
                raise ValueError(
                    f"{where} is a pair of texts, for which {self.options.single} would give another answer; leave "
                    "that argument out."
                )
        if not self.options.truncates:
            self._check_lengths([where for where, _ in items], texts)
        return self.embedder.tokenize(self.tokenizer, texts)

    def _check_lengths(self, places: Sequence[str], texts: Sequence[Text]) -> None:
        """Raise a ValueError on a text that would be cut."""
        if self.embedder.has_prompt:
            raise ValueError(
                "truncation is False, but with a prompt of examples a text may have to be cut to fit; leave that "
                "argument out."
            )
        limit = resolve_max_length(self.embedder.backbone, self.tokenizer, self.embedder.longest)
        for where, row in zip(places, tokenize(self.tokenizer, texts, None), strict=True):
            if limit is not None and len(row["input_ids"]) > limit:
                raise ValueError(
                    f"{where} has {len(row['input_ids'])} tokens, of which {limit} are read, and truncation is False; "
                    "pass truncation=True or a shorter text."
                )


class MediaInputs:
    """Images or audio; one that cannot be read leaves the others alone."""

    batches_per_window = 2

    def __init__(self, embedder: MediaEmbedder, processor: Any):
        self.embedder, self.processor = embedder, processor
        self.name = embedder.config.modality.name

    def is_one(self, inputs: Any) -> bool:
        """See [`Modality.is_one`]."""
        return self.embedder.config.modality.is_one(inputs)

    @record_function("tart/image processor")
    def rows(self, items: Sequence[tuple[str, Any]]) -> list[Any]:
        """What the backbone takes of each input, or why there is nothing; processors leave Python to the others."""
        if len(items) == 1:
            return [self._row(items[0])]
        with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
            return list(pool.map(self._row, items))

    def _row(self, item: tuple[str, Any]) -> Any:
        where, given = item
        try:
            return self.embedder.row(self.processor, given, where)
        except (ValueError, TypeError, OSError) as err:
            return Unreadable(err)


__all__ = ["Inputs", "MediaInputs", "TextInputs", "Unreadable"]
