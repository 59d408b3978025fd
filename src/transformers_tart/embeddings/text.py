"""The embedder of a composed model for texts: a backbone and the options of its config."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import (
    backbone_max_length,
    input_device,
    resolve_max_length,
    rows_beyond_switch,
)
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.in_context import encode_support, write_prompt
from transformers_tart.embeddings.pooling import normalized, pool_rows
from transformers_tart.embeddings.prompts import Prefix, Prompt, split_parts
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.inputs.texts import Text, parse_text
from transformers_tart.inputs.tokenization import (
    check_vocabulary,
    collate,
    known_token,
    pad_right,
    tokenize,
    tokenize_parts,
    truncate,
)


class EmbeddedExamples(NamedTuple):
    """An embedded support set."""

    embeddings: Tensor  # (k, layers, hidden) float32
    order: list[int]  # indices of the examples in the order of the embeddings
    prefix: Prefix | None = None  # the encoded prompt, for protocols that have one


class Unreadable(NamedTuple):
    """An input that cannot be read, and the error."""

    error: Exception


@dataclass(frozen=True)
class Embedder:
    """Embedder of a composed model: its frozen backbone, and the options that determine an embedding."""

    traits: BackboneTraits
    options: EmbeddingOptions
    cache: EmbeddingCache | None = None
    modality: Modality = TEXT

    # The numbers that are in memory at a time. Texts are sorted by length in large windows.
    batches_per_window = 32
    examples_per_window = sys.maxsize

    @property
    def backbone(self) -> PreTrainedModel:
        """The backbone."""
        return self.traits.backbone

    @property
    def prefix_encoder(self) -> PrefixEncoder:
        """The encoder of prompts."""
        return PrefixEncoder(self.traits, self.options, self.cache)

    def read(self, processor: Any, items: Sequence[tuple[str, Any]], options: TextOptions) -> list[Any]:
        """Return rows for [`embed_rows`], or [`Unreadable`], from the places and values of inputs."""
        texts = [parse_text(item, where) for where, item in items]
        for (where, _), text in zip(items, texts, strict=True):
            if options.single is not None and not isinstance(text, str):
                raise ValueError(
                    f"{where} is a pair of texts, for which {options.single} would give another answer; leave that "
                    "argument out."
                )
        if not options.truncates:
            self._check_lengths([where for where, _ in items], texts, processor)
        return self.tokenize(processor, texts)

    def read_one(self, processor: Any, value: Any, options: TextOptions) -> list[Any]:
        """Return the row of a single input, or raise the error of one that cannot be read."""
        rows = self.read(processor, [("The input", value)], options)
        if isinstance(rows[0], Unreadable):
            raise rows[0].error
        return rows

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, list[int]]]:
        """Return rows for [`embed_rows`]: whole texts, or, for a prompt, texts without special tokens."""
        if self.options.has_prompt:
            return tokenize_parts(tokenizer, texts)
        return tokenize(tokenizer, texts, resolve_max_length(self.backbone, tokenizer, self.options.max_length))

    def _check_lengths(self, places: Sequence[str], texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise a ValueError on a text that would be truncated."""
        if self.options.has_prompt:
            raise ValueError(
                "truncation is False, but with a prompt of examples a text may have to be cut to fit; leave that "
                "argument out."
            )
        limit = resolve_max_length(self.backbone, tokenizer, self.options.max_length)
        for where, row in zip(places, tokenize(tokenizer, texts, None), strict=True):
            if limit is not None and len(row["input_ids"]) > limit:
                raise ValueError(
                    f"{where} has {len(row['input_ids'])} tokens, of which {limit} are read, and truncation is False; "
                    "pass truncation=True or a shorter text."
                )

    def collate(self, processor: Any, rows: Sequence[Any]) -> dict[str, Tensor]:
        """Return a padded batch of rows."""
        return collate(rows, processor.pad_token_id)

    def embed_examples(
        self,
        examples: Examples,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
    ) -> EmbeddedExamples:
        """Embed a support set, in the order of the examples or, for a prompt, in an order of its own."""
        if self.options.has_prompt:
            return self._embed_prompt(examples, tokenizer, seed)
        found, inputs, size = [], examples.inputs, self.examples_per_window
        with tqdm(total=len(inputs), desc="embedding", unit=self.modality, disable=not progress_bar) as bar:
            batcher = Batcher.on(input_device(self.backbone), batch_size, bar)
            for start in range(0, len(inputs), size):
                rows = self._example_rows(tokenizer, inputs[start : start + size], start)
                padding = getattr(tokenizer, "pad_token_id", None)
                found.append(self.embed_rows(rows, pad_token_id=padding, batcher=batcher))
        return EmbeddedExamples(torch.cat(found), list(range(len(inputs))))

    def _example_rows(self, processor: Any, inputs: Sequence[Any], start: int) -> list[Any]:
        return self.tokenize(processor, inputs)

    def _embed_prompt(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, seed: int) -> EmbeddedExamples:
        written = write_prompt(self.backbone, tokenizer, examples, self.options, seed)
        check_vocabulary(self.backbone, [[written.prompt.largest_id]])
        found, prefix = encode_support(self.prefix_encoder, written.prompt, written.blocks, self.options.protocol)
        return EmbeddedExamples(normalized(found, self.options.normalize), written.order, prefix)

    def read_prompt(self, prompt: Prompt | None) -> Prefix | None:
        """Encode the prompt of a stored support set; return `None` for protocols without one."""
        if self.options.has_prompt != (prompt is not None):
            raise ValueError(
                f'The protocol is "{self.options.protocol}", but the support set holds '
                f"{'no prompt' if prompt is None else 'a prompt'}: it was made by another protocol. Encode the "
                "examples again with this model."
            )
        return None if prompt is None else encode_support(self.prefix_encoder, prompt)[1]

    def embed_rows(
        self,
        rows: Sequence[Any],
        prefix: Prefix | None = None,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
    ) -> Tensor:
        """Embed rows of queries, each without regard to the others: (n, layers, hidden) float32."""
        batcher = Batcher.on(input_device(self.backbone)) if batcher is None else batcher
        if prefix is None or prefix.prompt is None:
            found = self._embed_alone(rows, pad_token_id, batcher)
        else:
            check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
            parts = [_parts(row, prefix.prompt) for row in rows]
            queries = [prefix.prompt.continuation(part, self.options.max_length) for part in parts]
            found = self.prefix_encoder.embed(prefix, queries, batcher)
        # after the cache, whose embeddings serve both
        return normalized(found, self.options.normalize)

    def _embed_alone(self, rows: Sequence[Any], pad_token_id: int | None, batcher: Batcher) -> Tensor:
        check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
        device, pad_token_id = input_device(self.backbone), known_token(self.backbone, pad_token_id)

        def work(chosen: list[int]) -> Tensor:
            batch = move(collate([rows[i] for i in chosen], pad_token_id), device)
            return pool_rows(self.backbone, batch, self.options)

        lengths = [len(row["input_ids"]) for row in rows]
        keys = [] if self.cache is None else [self.cache.key(*row.values()) for row in rows]
        alone = rows_beyond_switch(self.backbone, lengths)
        return run_batches(batcher, lengths, work, alone=alone, cache=self.cache, keys=keys)

    def embed_batch(self, batch: dict[str, Tensor], prefix: Prefix | None = None) -> Tensor:
        """Embed a padded batch of inputs, each without regard to the others: (n, layers, hidden) float32."""
        prompt = None if prefix is None else prefix.prompt
        if prefix is None or prompt is None:
            return normalized(self.pool_batch(batch), self.options.normalize)
        mask = batch.pop("attention_mask").bool()
        rows = [{name: tensor[i][mask[i]].tolist() for name, tensor in batch.items()} for i in range(len(mask))]
        # without the special tokens of the tokenizer, which stand in no prompt
        parts = [[prompt.strip(part) for part in _parts(row, prompt)] for row in rows]
        queries = [prompt.continuation(part, self.options.max_length) for part in parts]
        return normalized(self.prefix_encoder.embed(prefix, queries), self.options.normalize)

    def pool_batch(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed a padded batch, each input alone, before the normalization."""
        batch = truncate(pad_right(batch), self.options.max_length, backbone_max_length(self.backbone))
        return pool_rows(self.backbone, batch, self.options)


def _parts(row: dict[str, list[int]], prompt: Prompt) -> list[list[int]]:
    """Return the token ids of a text, or of a text and its pair, as the template asks for them."""
    types, count = row.get("token_type_ids"), len(prompt.question.before)
    if count == 1 and types is not None and any(types):
        raise ValueError("The template asks for a single text, an input holds a text and its text_pair.")
    if count == 2 and types is None:
        raise ValueError(
            "The template asks for a text and its text_pair: give the model token_type_ids that distinguish them, or "
            'use pipeline("tart-classification") with {"text", "text_pair"}.'
        )
    return split_parts(row, count)
