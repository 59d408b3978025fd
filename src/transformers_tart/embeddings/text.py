"""How a composed model reads its support set and its queries: a backbone and the settings of its config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import backbone_max_length, input_device, resolve_max_length
from transformers_tart.configuration_tart import IN_CONTEXT_PROTOCOLS, TartConfig
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.in_context import read_prompt, read_support, write_prompt
from transformers_tart.embeddings.pooling import normalized, pooled_hidden_states
from transformers_tart.embeddings.prompts import Prompt
from transformers_tart.embeddings.shared_prefix import Prefix, Reader
from transformers_tart.embeddings.stream import encode_rows, encode_texts
from transformers_tart.inputs.audio import BYTES
from transformers_tart.inputs.containers import can_iterate
from transformers_tart.inputs.examples import Examples, Text, parse_text
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.inputs.tokenization import check_vocabulary, pad_right, tokenize, tokenize_parts, truncate


class EmbeddedExamples(NamedTuple):
    """Embeddings (k, layers, hidden), the indices of the examples in their order, and of protocols with a prompt the
    prompt and what the backbone keeps of it."""

    embeddings: Tensor
    order: list[int]
    prompt: Prompt | None = None
    prefix: Prefix | None = None


@dataclass(frozen=True)
class Embedder:
    r"""
    Embeds for a composed model.

    Args:
        backbone (`PreTrainedModel`):
            The frozen model.
        config ([`TartConfig`]):
            Says protocol, template, pooling, normalization, layers and lengths.
        cache ([`EmbeddingCache`], *optional*):
            Where embeddings are looked up first, and kept.
        max_length (`int`, *optional*):
            Longest text in tokens, in place of the config's.
    """

    backbone: PreTrainedModel
    config: TartConfig
    cache: EmbeddingCache | None = None
    max_length: int | None = None

    @property
    def has_prompt(self) -> bool:
        """Whether queries are read after a prompt of the examples."""
        return self.config.protocol in IN_CONTEXT_PROTOCOLS

    @property
    def longest(self) -> int | None:
        """Longest text in tokens."""
        return self.config.max_length if self.max_length is None else self.max_length

    @property
    def reader(self) -> Reader:
        """What reads prompts."""
        return Reader(self.backbone, self.config.layers, self.config.pooling, self.cache)

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, list[int]]]:
        """Queries as rows for [`embed_rows`]: whole texts, or, for a prompt, texts without special tokens."""
        if not self.has_prompt:
            return tokenize(tokenizer, texts, resolve_max_length(self.backbone, tokenizer, self.longest))
        return tokenize_parts(tokenizer, texts)

    def embed_examples(
        self,
        examples: Examples,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
    ) -> EmbeddedExamples:
        """Embed a support set, in the order of the examples or, of a prompt, in an order of its own."""
        config = self.config
        if not self.has_prompt:
            embeddings = encode_texts(
                self.backbone,
                tokenizer,
                examples.texts,
                pooling=config.pooling,
                layers=config.layers,
                normalize=config.normalize,
                max_length=self.longest,
                batch_size=batch_size,
                progress_bar=progress_bar,
                cache=self.cache,
            )
            return EmbeddedExamples(embeddings, list(range(len(examples.texts))))
        written = write_prompt(
            self.backbone,
            tokenizer,
            examples.texts,
            examples.labels,
            examples.label_names,
            template=config.template,
            max_length=self.longest,
            seed=seed,
        )
        check_vocabulary(self.backbone, [[written.prompt.largest_id]])
        embeddings, prefix = read_support(self.reader, written, config.protocol)
        return EmbeddedExamples(normalized(embeddings, config.normalize), written.order, written.prompt, prefix)

    def read_prompt(self, prompt: Prompt | None) -> Prefix | None:
        """Read the prompt of a support set that was embedded before; `None` for protocols without one.

        Raises:
            ValueError: When the support set was made by a protocol of the other kind.
        """
        if self.has_prompt != (prompt is not None):
            raise ValueError(
                f'The protocol is "{self.config.protocol}", but the support set holds '
                f"{'no prompt' if prompt is None else 'a prompt'}: it was made by another protocol. Encode the "
                "examples again with this model."
            )
        return None if prompt is None else read_prompt(self.reader, prompt)

    def embed_rows(
        self,
        rows: Sequence[dict[str, list[int]]],
        prompt: Prompt | None,
        prefix: Prefix | None,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
        progress: tqdm | None = None,
    ) -> Tensor:
        """Embeddings (n, layers, hidden) of tokenized queries, which never see each other."""
        batcher = Batcher.on(input_device(self.backbone)) if batcher is None else batcher
        if prompt is None or prefix is None:
            options = {"pooling": self.config.pooling, "layers": self.config.layers, "cache": self.cache}
            found = encode_rows(self.backbone, rows, pad_token_id, batcher, progress=progress, **options)  # type: ignore
        else:
            check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
            branches = [prompt.branch(_parts(row, prompt), self.longest) for row in rows]
            found = self.reader.embed(prefix, branches, batcher, progress)
        # after the cache, whose embeddings serve both ways
        return normalized(found, self.config.normalize)

    def embed_batch(self, batch: dict[str, Tensor], prompt: Prompt | None, prefix: Prefix | None) -> Tensor:
        """Embeddings (n, layers, hidden) of a padded batch `input_ids`, `attention_mask` and perhaps
        `token_type_ids`, each (n, length)."""
        if prompt is None:
            batch = truncate(pad_right(batch), self.longest, backbone_max_length(self.backbone))
            options = {"pooling": self.config.pooling, "layers": self.config.layers}
            found = pooled_hidden_states(self.backbone, **batch, **options)  # type: ignore[arg-type]
            return normalized(found, self.config.normalize)
        mask = batch.pop("attention_mask").bool()
        rows = [{name: tensor[i][mask[i]].tolist() for name, tensor in batch.items()} for i in range(len(mask))]
        # a tokenizer has put special tokens around them, which stand in no prompt
        branches = [prompt.branch([prompt.strip(part) for part in _parts(row, prompt)], self.longest) for row in rows]
        found = self.reader.embed(prefix, branches) if prefix is not None else torch.empty(0)
        return normalized(found, self.config.normalize)


def _parts(row: dict[str, list[int]], prompt: Prompt) -> list[list[int]]:
    """The token ids of a text, or of a text and its pair, which the token types tell apart."""
    ids, types = row["input_ids"], row.get("token_type_ids")
    if len(prompt.question.before) == 1:
        if types is not None and any(types):
            raise ValueError("The template asks for a single text, an input holds a text and its text_pair.")
        return [ids]
    if types is None:
        raise ValueError(
            "The template asks for a text and its text_pair: give the model token_type_ids that tell them apart, or "
            'use pipeline("tart-classification") with {"text", "text_pair"}.'
        )
    return [[token for token, segment in zip(ids, types, strict=True) if segment == part] for part in (0, 1)]


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
        """A string or a mapping is one."""
        if isinstance(inputs, (str, Mapping)):
            return True
        if isinstance(inputs, BYTES) or not can_iterate(inputs):
            raise TypeError(
                f"The input is {type(inputs).__name__}; give a text, a list of texts or a generator of texts."
            )
        return False

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


__all__ = ["EmbeddedExamples", "Embedder", "Inputs", "TextInputs", "Unreadable"]
