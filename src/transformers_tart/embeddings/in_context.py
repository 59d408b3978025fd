"""`vanilla` and `loo`: embeddings of examples and queries inside a prompt of labeled examples.

`vanilla` encodes one prompt of all examples, and an example's embedding is the mean over its span. In `loo` an example
comes last, after all the others, as a query does (arXiv 2306.07536, section 4.1). Spans run from the beginning of an
example to the place of its label, those of queries too.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import resolve_max_length, rows_beyond_switch
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.tensors import check_seed
from transformers_tart.embeddings.prompts import Block, Continuation, Prefix, Prompt, Writer, choose_template, fit
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.examples import Examples


# A prompt of so few examples is encoded once for each that comes last; of more, halves are put before each other.
FEW = 4


class WrittenPrompt(NamedTuple):
    """A prompt, its writer, its examples, and their indices in the order of the prompt."""

    prompt: Prompt
    writer: Writer
    blocks: list[Block]
    order: list[int]


def write_prompt(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    options: EmbeddingOptions,
    seed: int = 0,
) -> WrittenPrompt:
    """Write the newest examples that fit the context of the backbone into one prompt, in a seeded order."""
    writer = Writer(tokenizer, choose_template(options.template, examples.inputs))
    question, start = writer.question, writer.start
    context, longest, fields = resolve_max_length(backbone, tokenizer), options.max_length, len(question.before)
    if context is not None:
        half = (context // 2 - question.length) // fields
        if half < 1:
            raise ValueError(
                f"The template takes {question.length} tokens without any text, and the backbone's context has "
                f'{context}: give a shorter template, or use protocol="stream".'
            )
        longest = half if longest is None else min(half, longest)
    blocks = []
    for parts, label in zip(writer.parts(examples.inputs, longest), examples.labels, strict=True):
        asked = question.ask(parts)
        blocks.append(Block((*asked, *writer.label(examples.label_names[label])), len(asked)))
    limit = None
    if context is not None and longest is not None:
        # a query may be twice as long as the examples are; longer ones are truncated
        usual = min(2 * max(block.asked for block in blocks), context // 4)
        reserved = usual if options.max_length is None else question.length + fields * longest
        limit = context - len(start) - reserved
    order = fit([len(block.ids) for block in blocks], examples.labels, limit)
    random.Random(check_seed(seed)).shuffle(order)
    ids = (*start, *(token for i in order for token in blocks[i].ids))
    max_query_tokens = None if context is None else context - len(ids)
    prompt = Prompt(ids, question, writer.special, max_query_tokens, tokenizer.truncation_side)
    return WrittenPrompt(prompt, writer, [blocks[i] for i in order], order)


def encode_support(
    encoder: PrefixEncoder, prompt: Prompt, blocks: Sequence[Block] = (), protocol: str = "vanilla"
) -> tuple[Tensor, Prefix]:
    """Encode a prompt: return the embeddings (k, layers, hidden) of its examples, and the prefix of the queries."""
    _require_causal(encoder.traits)
    first = at = len(prompt.ids) - sum(len(block.ids) for block in blocks)
    spans = []
    for block in blocks if protocol == "vanilla" else ():
        spans.append((at, at + block.asked))
        at += len(block.ids)
    prefix, embeddings = encoder.start(prompt.ids, spans, prompt.max_query_tokens)
    asked = prompt.question.before[0]  # with which all queries begin
    if asked:
        prefix, found = encoder.extend(prefix, asked, [(0, len(asked))])
        prefix = replace(prefix, query_prefix=found[0], query_prefix_length=len(asked))
    if protocol == "loo":
        embeddings = _embed_each_last(encoder, prompt.ids[:first], blocks, prefix.strategy)
    return embeddings, replace(prefix, prompt=prompt)


def leave_one_out_orders(members: Sequence[int], before: tuple[int, ...] = ()) -> dict[int, tuple[int, ...]]:
    """Return for each member an order of all in which it comes last.

    Halves are put before each other, down to a few members: k examples are encoded about log2(k) times, where the
    order of the paper, the others as they are, encodes them k / 2 times.
    """
    if len(members) <= FEW:
        return {i: (*before, *(j for j in members if j != i), i) for i in members}
    left, right = members[: len(members) // 2], members[len(members) // 2 :]
    return {**leave_one_out_orders(left, (*before, *right)), **leave_one_out_orders(right, (*before, *left))}


def _embed_each_last(encoder: PrefixEncoder, start: Sequence[int], blocks: Sequence[Block], strategy: str) -> Tensor:
    """Embed each example (k, layers, hidden) in the order of [`leave_one_out_orders`] in which it comes last."""
    length = len(start) + sum(len(block.ids) for block in blocks)
    if strategy == "off" or rows_beyond_switch(encoder.backbone, [length]):
        orders = leave_one_out_orders(range(len(blocks)))
        continuations = [_continue(blocks, orders[i]) for i in range(len(blocks))]
        return encoder.embed(Prefix(tuple(start), strategy="off"), continuations)

    def embed(members: Sequence[int], prefix: Prefix) -> list[Tensor]:
        if len(members) <= FEW:
            orders = leave_one_out_orders(members)
            return [encoder.embed(prefix, [_continue(blocks, orders[i]) for i in members])]
        left, right = members[: len(members) // 2], members[len(members) // 2 :]
        after_right, _ = encoder.extend(prefix, [token for i in right for token in blocks[i].ids])
        found = embed(left, after_right)
        del after_right  # of a long prompt, one beginning at a time fills the memory
        after_left, _ = encoder.extend(prefix, [token for i in left for token in blocks[i].ids])
        return found + embed(right, after_left)

    return torch.cat(embed(range(len(blocks)), encoder.extend(Prefix(strategy=strategy), start)[0]))


def _continue(blocks: Sequence[Block], order: Sequence[int]) -> Continuation:
    """Return the examples of an order up to the label of the last, whose span is embedded."""
    before = [token for i in order[:-1] for token in blocks[i].ids]
    last = blocks[order[-1]]
    return Continuation((*before, *last.ids[: last.asked]), ((len(before), len(before) + last.asked),))


def _require_causal(traits: BackboneTraits) -> None:
    """Raise a ValueError for a backbone in which a token changes the hidden states before it."""
    if traits.is_causal:
        return
    raise ValueError(
        f"{type(traits.backbone).__name__} reads a text in both directions, so that each query would change the "
        'embeddings of the examples before it: protocols "vanilla" and "loo" need a causal language model. Use '
        'protocol="stream".'
    )
