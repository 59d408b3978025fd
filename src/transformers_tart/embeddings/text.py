"""The embedder of a composed model for texts: a backbone and the options of its config."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from transformers_tart.checks.tracing import is_traced
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.in_context import encode_support, write_prompt
from transformers_tart.embeddings.passages import PassageReader
from transformers_tart.embeddings.phrases import Phrasing, Reading
from transformers_tart.embeddings.pooling import pool_rows
from transformers_tart.embeddings.prompts import Prefix, Prompt, strip
from transformers_tart.embeddings.rows import add_parts, parts_for_prompt, parts_of, whole_rows
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.embeddings.views import join_views, normalized, split_views
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.inputs.texts import Text, parse_text, write_text
from transformers_tart.inputs.tokenization import (
    check_vocabulary,
    collate,
    known_token,
    pad_right,
    tokenize,
    tokenize_parts,
    truncate,
)
from transformers_tart.inputs.views import View


class EmbeddedExamples(NamedTuple):
    """An embedded support set."""

    embeddings: Tensor  # (k, layers of all views, hidden) float32
    order: list[int]  # indices of the examples in the order of the embeddings
    reading: Reading | None = None  # of queries, where views have templates or the protocol a prompt


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
    def views(self) -> tuple[View, ...]:
        """The views of each input."""
        return self.options.views

    @property
    def plain(self) -> tuple[int, ...]:
        """The numbers of the views that read inputs with the special tokens of the tokenizer."""
        return tuple(i for i, view in enumerate(self.views) if view.template is None and not self.options.has_prompt)

    @property
    def prefix_encoder(self) -> PrefixEncoder:
        """The encoder of prompts."""
        return PrefixEncoder(self.traits, self.views, self.cache)

    @property
    def passage_reader(self) -> PassageReader:
        """The reader of the views that have templates."""
        return PassageReader(self.prefix_encoder)

    @property
    def has_templates(self) -> bool:
        """The presence of a view with a template, outside a prompt."""
        return not self.options.has_prompt and len(self.plain) < len(self.views)

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

    def tokenize(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Return rows for [`embed_rows`]: whole texts, or, for templates, texts without special tokens, or both."""
        texts = self.write(texts)
        parts = tokenize_parts(tokenizer, texts) if len(self.plain) < len(self.views) else []
        rows = parts
        if self.plain:
            rows = tokenize(tokenizer, texts, resolve_max_length(self.backbone, tokenizer, self.options.max_length))
        return add_parts(rows, parts, texts) if self.has_templates else rows

    def write(self, texts: Sequence[Text]) -> list[Text]:
        """Return texts as they are tokenized, with the prompt of the options."""
        return [write_text(text, self.options.prompt, self.options.lower_case) for text in texts]

    def _check_lengths(self, places: Sequence[str], texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise a ValueError on a text that would be truncated."""
        if self.options.has_prompt:
            raise ValueError(
                "truncation is False, but with a prompt of examples a text may have to be cut to fit; leave that "
                "argument out."
            )
        texts, limit = self.write(texts), resolve_max_length(self.backbone, tokenizer, self.options.max_length)
        rows = tokenize(tokenizer, texts, None) if self.plain else []
        sizes = [(where, len(row["input_ids"]), limit) for where, row in zip(places, rows, strict=False)]
        if self.has_templates:
            phrasing, parts = self.passage_reader.write(tokenizer), tokenize_parts(tokenizer, texts)
            for where, row in zip(places, add_parts(parts, parts, texts), strict=True):
                sizes += [(where, *size) for size in phrasing.sizes(parts_of(row), self.options.max_length)]
        for where, size, limit in sizes:
            if limit is not None and size > limit:
                raise ValueError(
                    f"{where} has {size} tokens, of which {limit} are read, and truncation is False; pass "
                    "truncation=True or a shorter text."
                )

    def collate(self, processor: Any, rows: Sequence[Any]) -> dict[str, Tensor]:
        """Return a padded batch of rows."""
        return collate(whole_rows(rows), processor.pad_token_id)

    def embed_examples(
        self,
        examples: Examples,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
        reading: Reading | None = None,
    ) -> EmbeddedExamples:
        """Embed a support set, in the order of the examples or, for a prompt, in an order of its own."""
        if self.options.has_prompt:
            return self._embed_prompt(examples, tokenizer, seed)
        found, inputs, size = [], examples.inputs, self.examples_per_window
        if reading is None and self.has_templates:
            reading = self.passage_reader.start(tokenizer)
        with tqdm(total=len(inputs), desc="embedding", unit=self.modality, disable=not progress_bar) as bar:
            batcher = Batcher.on(input_device(self.backbone), batch_size, bar)
            for start in range(0, len(inputs), size):
                rows = self._example_rows(tokenizer, inputs[start : start + size], start)
                padding = getattr(tokenizer, "pad_token_id", None)
                found.append(self.embed_rows(rows, reading, pad_token_id=padding, batcher=batcher))
        return EmbeddedExamples(torch.cat(found), list(range(len(inputs))), reading)

    def _example_rows(self, processor: Any, inputs: Sequence[Any], start: int) -> list[Any]:
        return self.tokenize(processor, inputs)

    def _embed_prompt(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, seed: int) -> EmbeddedExamples:
        examples = replace(examples, inputs=self.write(examples.inputs))
        written = write_prompt(self.backbone, tokenizer, examples, self.options, seed)
        check_vocabulary(self.backbone, [[written.prompt.largest_id]])
        found, prefix = encode_support(self.prefix_encoder, written.prompt, written.blocks, self.options.protocol)
        return EmbeddedExamples(normalized(found, self.views), written.order, Reading((prefix,)))

    def read_support(self, prompt: Prompt | None, phrasing: Phrasing | None) -> Reading | None:
        """Encode the prompt or the phrasing of a stored support set; return `None` for one of neither."""
        numbers = [i for passage in (phrasing.passages if phrasing else ()) for i in passage.views]
        has_all = sorted((*numbers, *self.plain)) == list(range(len(self.views))) or self.options.has_prompt
        if self.options.has_prompt != (prompt is not None) or not has_all:
            raise ValueError(
                f'The protocol is "{self.options.protocol}" and {len(self.views) - len(self.plain)} views have '
                f"templates, but the support set holds {'no prompt' if prompt is None else 'a prompt'} and templates "
                f"for {len(numbers)} views: it was made by another model. Encode the examples again with this model."
            )
        if prompt is not None:
            return Reading((encode_support(self.prefix_encoder, prompt)[1],))
        return None if phrasing is None else self.passage_reader.open(phrasing)

    def embed_rows(
        self,
        rows: Sequence[Any],
        reading: Reading | None = None,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
    ) -> Tensor:
        """Embed rows of queries, each without regard to the others: (n, layers of all views, hidden) float32."""
        batcher = Batcher.on(input_device(self.backbone)) if batcher is None else batcher
        if reading is None:
            found = self._embed_alone(rows, self.views, pad_token_id, batcher)
        elif reading.phrasing is not None:
            parts = [parts_of(row) for row in rows]
            plain = partial(self._embed_alone, whole_rows(rows), pad_token_id=pad_token_id, batcher=batcher)
            found = self._embed_passages(parts, reading.phrasing, reading.prefixes, plain, batcher)
        else:
            check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
            parts = [parts_for_prompt(row, _prompt_of(reading)) for row in rows]
            found = self._continue_prompt(parts, reading, batcher)
        # after the cache, whose embeddings serve both
        return normalized(found, self.views)

    def _embed_passages(
        self,
        parts: Sequence[Any],
        phrasing: Phrasing,
        prefixes: Sequence[Prefix],
        embed_plain: Callable[[Sequence[View]], Tensor],
        batcher: Batcher | None = None,
    ) -> Tensor:
        """Embed texts by the views with templates and, through `embed_plain`, by the others, in their order."""
        found = self.passage_reader.embed(parts, phrasing, prefixes, self.options.max_length, batcher)
        if views := [self.views[i] for i in self.plain]:
            found.update(zip(self.plain, split_views(embed_plain(views), views), strict=True))
        return join_views([found[i] for i in range(len(self.views))])

    def _continue_prompt(self, parts: Sequence[Any], reading: Reading, batcher: Batcher | None = None) -> Tensor:
        queries = [_prompt_of(reading).continuation(part, self.options.max_length) for part in parts]
        return self.prefix_encoder.embed(reading.prefixes[0], queries, batcher)

    def _embed_alone(
        self, rows: Sequence[Any], views: Sequence[View], pad_token_id: int | None, batcher: Batcher
    ) -> Tensor:
        check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
        device, pad_token_id = input_device(self.backbone), known_token(self.backbone, pad_token_id)

        def work(chosen: list[int]) -> Tensor:
            batch = move(collate([rows[i] for i in chosen], pad_token_id), device)
            return pool_rows(self.backbone, batch, views)

        lengths = [len(row["input_ids"]) for row in rows]
        keys = [] if self.cache is None else [self.cache.key(*row.values(), views=views) for row in rows]
        alone = rows_beyond_switch(self.backbone, lengths)
        return run_batches(batcher, lengths, work, alone=alone, cache=self.cache, keys=keys)

    def embed_batch(self, batch: dict[str, Tensor], reading: Reading | None = None) -> Tensor:
        """Embed a padded batch of inputs, each without regard to the others; see [`embed_rows`]."""
        if reading is None:
            return normalized(self.pool_batch(batch, self.views), self.views)
        if is_traced():
            raise ValueError(
                "Views with templates and prompts cannot be exported, since texts are cut out of the batch; compose "
                'the model with views="plain".'
            )
        mask = batch["attention_mask"].bool()
        names = [name for name in batch if name != "attention_mask"]
        rows = [{name: batch[name][i][mask[i]].tolist() for name in names} for i in range(len(mask))]
        # without the special tokens of the tokenizer, which stand in no prompt and no template
        if reading.phrasing is not None:
            special = reading.phrasing.special
            parts = [[strip(part, special) for part in parts_of(row)] for row in rows]
            plain = partial(self.pool_batch, batch)
            found = self._embed_passages(parts, reading.phrasing, reading.prefixes, plain)
            return normalized(found, self.views)
        prompt = _prompt_of(reading)
        parts = [[strip(part, prompt.special) for part in parts_for_prompt(row, prompt)] for row in rows]
        return normalized(self._continue_prompt(parts, reading), self.views)

    def pool_batch(self, batch: dict[str, Tensor], views: Sequence[View]) -> Tensor:
        """Embed a padded batch, each input alone, before the normalization."""
        batch = truncate(pad_right(batch), self.options.max_length, backbone_max_length(self.backbone))
        return pool_rows(self.backbone, batch, views)


def _prompt_of(reading: Reading) -> Prompt:
    prompt = reading.prefixes[0].prompt
    assert prompt is not None
    return prompt
