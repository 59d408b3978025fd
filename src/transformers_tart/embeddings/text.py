"""The embedder of a composed model for texts: a backbone and the options of its config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import backbone_max_length, input_device, resolve_max_length
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.in_context import encode_prompt, encode_support, write_prompt
from transformers_tart.embeddings.pooling import normalized, pooled_hidden_states
from transformers_tart.embeddings.prefix_cache import Continuation, Prefix
from transformers_tart.embeddings.prompts import Prompt, split_parts
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.embeddings.stream import encode_rows
from transformers_tart.inputs.audio import BYTES
from transformers_tart.inputs.containers import can_iterate
from transformers_tart.inputs.examples import Examples, Text, parse_text
from transformers_tart.inputs.text_options import TextOptions
from transformers_tart.inputs.tokenization import (
    check_vocabulary,
    collate,
    pad_right,
    tokenize,
    tokenize_parts,
    truncate,
)


class EmbeddedExamples(NamedTuple):
    """An embedded support set.

    Attributes:
        embeddings: (k, layers, hidden) float32.
        order: indices of the examples in the order of the embeddings.
        prompt: the prompt, for protocols with one.
        prefix: the encoded prompt.
    """

    embeddings: Tensor
    order: list[int]
    prompt: Prompt | None = None
    prefix: Prefix | None = None


class Unreadable(NamedTuple):
    """An input that cannot be read, and the error."""

    error: Exception


@dataclass(frozen=True)
class Embedder:
    r"""
    Embedder of a composed model.

    Args:
        traits ([`BackboneTraits`]):
            The frozen backbone.
        options ([`EmbeddingOptions`]):
            Protocol, template, pooling, layers and lengths.
        cache ([`EmbeddingCache`], *optional*):
            Cache in which embeddings are looked up and stored.
    """

    traits: BackboneTraits
    options: EmbeddingOptions
    cache: EmbeddingCache | None = None

    batches_per_window = 32  # whose inputs are in memory at a time, to be sorted by length

    @property
    def backbone(self) -> PreTrainedModel:
        """The backbone."""
        return self.traits.backbone

    @property
    def prefix_encoder(self) -> PrefixEncoder:
        """The encoder of prompts."""
        return PrefixEncoder(self.traits, self.options, self.cache)

    def is_one(self, inputs: Any) -> bool:
        """Return whether a value is a single input, a string or a mapping, rather than many.

        Raises:
            TypeError: On values that are neither a text nor an iterable of texts.
        """
        if isinstance(inputs, (str, Mapping)):
            return True
        if isinstance(inputs, BYTES) or not can_iterate(inputs):
            raise TypeError(
                f"The input is {type(inputs).__name__}; give a text, a list of texts or a generator of texts."
            )
        return False

    def read(self, processor: Any, items: Sequence[tuple[str, Any]], options: TextOptions) -> list[Any]:
        """Return rows for [`embed_rows`] from the places and values of inputs, or [`Unreadable`].

        Raises:
            TypeError, ValueError: On an input that is no text, or that `options` refuse.
        """
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
        if not self.options.has_prompt:
            rows, padding = self.tokenize(tokenizer, examples.inputs), tokenizer.pad_token_id
            batcher = Batcher.on(input_device(self.backbone), batch_size)
            with tqdm(total=len(rows), desc="embedding", unit="text", disable=not progress_bar) as bar:
                embeddings = self.embed_rows(rows, pad_token_id=padding, batcher=batcher, progress=bar)
            return EmbeddedExamples(embeddings, list(range(len(rows))))
        written = write_prompt(self.backbone, tokenizer, examples, self.options, seed)
        check_vocabulary(self.backbone, [[written.prompt.largest_id]])
        protocol = self.options.protocol
        embeddings, prefix = encode_support(self.prefix_encoder, written.prompt, written.blocks, protocol)
        return EmbeddedExamples(normalized(embeddings, self.options.normalize), written.order, written.prompt, prefix)

    def read_prompt(self, prompt: Prompt | None) -> Prefix | None:
        """Encode the prompt of a stored support set; return `None` for protocols without one.

        Raises:
            ValueError: When the support set was made by a protocol of the other kind.
        """
        if self.options.has_prompt != (prompt is not None):
            raise ValueError(
                f'The protocol is "{self.options.protocol}", but the support set holds '
                f"{'no prompt' if prompt is None else 'a prompt'}: it was made by another protocol. Encode the "
                "examples again with this model."
            )
        return None if prompt is None else encode_prompt(self.prefix_encoder, prompt)

    def embed_rows(
        self,
        rows: Sequence[Any],
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
        progress: tqdm | None = None,
    ) -> Tensor:
        """Embed rows of queries, each without regard to the others: (n, layers, hidden) float32."""
        if prompt is None or prefix is None:
            batcher = Batcher.on(input_device(self.backbone)) if batcher is None else batcher
            found = encode_rows(self.backbone, rows, pad_token_id, self.options, batcher, self.cache, progress)
        else:
            check_vocabulary(self.backbone, (row["input_ids"] for row in rows))
            queries = [self._continue(prompt, _parts(row, prompt)) for row in rows]
            found = self.prefix_encoder.embed(prefix, queries, batcher, progress)
        # after the cache, whose embeddings serve both
        return normalized(found, self.options.normalize)

    def embed_batch(
        self, batch: dict[str, Tensor], prompt: Prompt | None = None, prefix: Prefix | None = None
    ) -> Tensor:
        """Embed a padded batch `input_ids`, `attention_mask` and perhaps `token_type_ids`, each (n, length)."""
        options = self.options
        if prompt is None or prefix is None:
            batch = truncate(pad_right(batch), options.max_length, backbone_max_length(self.backbone))
            found = pooled_hidden_states(self.backbone, **batch, pooling=options.pooling, layers=options.layers)
        else:
            mask = batch.pop("attention_mask").bool()
            rows = [{name: tensor[i][mask[i]].tolist() for name, tensor in batch.items()} for i in range(len(mask))]
            # without the special tokens of the tokenizer, which stand in no prompt
            parts = [[prompt.strip(part) for part in _parts(row, prompt)] for row in rows]
            found = self.prefix_encoder.embed(prefix, [self._continue(prompt, part) for part in parts])
        return normalized(found, options.normalize)

    def _continue(self, prompt: Prompt, parts: Sequence[Sequence[int]]) -> Continuation:
        return prompt.continuation(parts, self.options.max_length)


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


__all__ = ["EmbeddedExamples", "Embedder", "Unreadable"]
