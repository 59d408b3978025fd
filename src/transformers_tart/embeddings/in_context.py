"""`vanilla` and `loo`: embeddings of examples and queries inside a prompt of labeled examples.

`vanilla` reads one prompt of all examples, and an example's embedding is the mean over its span. In `loo` an example
is read last, after all the others, as a query is (arXiv 2306.07536, section 4.1). Spans run from the beginning of an
example to where its label stands, those of queries too.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import (
    are_close,
    input_device,
    resolve_max_length,
    run_backbone,
    switch_length,
    without_cache,
)
from transformers_tart.checks.tensors import check_seed
from transformers_tart.embeddings.prompts import Block, Prompt, Writer, choose_template, fit
from transformers_tart.embeddings.shared_prefix import Continuation, Prefix, Reader
from transformers_tart.inputs.examples import Text


# A prompt of so few examples is read once for each that comes last; of more, halves are read before each other.
FEW = 4


class WrittenPrompt(NamedTuple):
    """A prompt, what wrote it, its examples, and their indices in the order of the prompt."""

    prompt: Prompt
    writer: Writer
    blocks: list[Block]
    order: list[int]


def write_prompt(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    labels: Sequence[int],
    label_names: Sequence[str],
    *,
    template: str | None = None,
    max_length: int | None = None,
    max_characters: int | None = None,
    seed: int = 0,
) -> WrittenPrompt:
    r"""
    Write labeled examples into one prompt.

    Args:
        backbone (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The frozen model, whose context limits the prompt, and its tokenizer.
        texts (`list`), labels (`list[int]`), label_names (`list[str]`):
            k texts or (text, text_pair) tuples, their labels, and what the prompt calls the classes.
        template (`str`, *optional*):
            With `{text}`, for pairs `{text_pair}`, and `{label}`; the paper's when not given.
        max_length (`int`, *optional*), max_characters (`int`, *optional*):
            What is read of each text, in tokens and in characters.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order of the examples.

    Returns:
        [`WrittenPrompt`]: of the newest examples that fit, as balanced as they can be; how many were dropped is said.
    """
    writer = Writer(tokenizer, choose_template(template, texts))
    question, start = writer.question, writer.start
    context = resolve_max_length(backbone, tokenizer)
    fields = len(question.before)
    longest = max_length
    if context is not None:
        whole = (context // 2 - question.length) // fields
        if whole < 1:
            raise ValueError(
                f"The template takes {question.length} tokens without any text, and the backbone's context has "
                f'{context}: give a shorter template, or use protocol="stream".'
            )
        longest = whole if max_length is None else min(whole, max_length)
    blocks = []
    for parts, label in zip(writer.parts(texts, longest, max_characters), labels, strict=True):
        asked = question.ask(parts)
        blocks.append(Block((*asked, *writer.label(label_names[label])), len(asked)))
    limit = None
    if context is not None and longest is not None:
        # a query may be twice as long as the examples are; what is longer is cut
        usual = min(2 * max(block.asked for block in blocks), context // 4)
        reserved = usual if max_length is None else question.length + fields * longest
        limit = context - len(start) - reserved
    order = fit([len(block.ids) for block in blocks], labels, limit)
    random.Random(check_seed(seed)).shuffle(order)
    ids = (*start, *(token for i in order for token in blocks[i].ids))
    room = None if context is None else context - len(ids)
    prompt = Prompt(ids, question, writer.special, room, writer.truncation_side)
    return WrittenPrompt(prompt, writer, [blocks[i] for i in order], order)


def read_prompt(reader: Reader, prompt: Prompt) -> Prefix:
    """Read a prompt once, for the queries that follow it."""
    _require_causal(reader.backbone, prompt.ids)
    return reader.lead(reader.start(prompt.ids, (), prompt.room)[0], prompt.question.before[0])


def read_support(reader: Reader, written: WrittenPrompt, protocol: str) -> tuple[Tensor, Prefix]:
    """Read a prompt: the embeddings (k, layers, hidden) of its examples, and the prefix for the queries to follow."""
    prompt, blocks = written.prompt, written.blocks
    first = len(prompt.ids) - sum(len(block.ids) for block in blocks)
    if protocol == "loo":
        prefix = read_prompt(reader, prompt)
        return _each_last(reader, prompt.ids[:first], blocks, prefix.way), prefix
    _require_causal(reader.backbone, prompt.ids)
    spans, at = [], first
    for block in blocks:
        spans.append((at, at + block.asked))
        at += len(block.ids)
    prefix, embeddings = reader.start(prompt.ids, spans, prompt.room)
    return embeddings, reader.lead(prefix, prompt.question.before[0])


def leave_one_out_orders(members: Sequence[int], before: tuple[int, ...] = ()) -> dict[int, tuple[int, ...]]:
    """For each member the order of all in which it comes last.

    Halves are read before each other, down to a few members: k examples are read about log2(k) times, where the order
    of the paper, the others as they are, reads them k / 2 times.
    """
    if len(members) <= FEW:
        return {i: (*before, *(j for j in members if j != i), i) for i in members}
    left, right = _halves(members)
    return {**leave_one_out_orders(left, (*before, *right)), **leave_one_out_orders(right, (*before, *left))}


def _halves(members: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    return members[: len(members) // 2], members[len(members) // 2 :]


def _each_last(reader: Reader, start: Sequence[int], blocks: Sequence[Block], way: str) -> Tensor:
    """Embeddings (k, layers, hidden) of examples in the order of [`leave_one_out_orders`]."""
    limit = switch_length(reader.backbone)
    if way == "plain" or (limit is not None and len(start) + sum(len(block.ids) for block in blocks) > limit):
        orders = leave_one_out_orders(range(len(blocks)))
        return reader.embed(
            Prefix(tuple(start), way="plain"), [_branch(blocks, orders[i]) for i in range(len(blocks))]
        )

    def read(members: Sequence[int], prefix: Prefix) -> list[Tensor]:
        if len(members) <= FEW:
            orders = leave_one_out_orders(members)
            return [reader.embed(prefix, [_branch(blocks, orders[i]) for i in members])]
        left, right = _halves(members)
        after_right, _ = reader.extend(prefix, [token for i in right for token in blocks[i].ids])
        found = read(left, after_right)
        del after_right  # of a long prompt, one beginning at a time fills the memory
        after_left, _ = reader.extend(prefix, [token for i in left for token in blocks[i].ids])
        return found + read(right, after_left)

    return torch.cat(read(range(len(blocks)), reader.extend(Prefix(way=way), start)[0]))


def _branch(blocks: Sequence[Block], order: Sequence[int]) -> Continuation:
    """The examples of an order up to the label of the last, whose span is embedded."""
    before = [token for i in order[:-1] for token in blocks[i].ids]
    last = blocks[order[-1]]
    return Continuation((*before, *last.ids[: last.asked]), (len(before), len(before) + last.asked))


def _require_causal(backbone: PreTrainedModel, ids: Sequence[int]) -> None:
    """Refuse a backbone in which a token changes what came before it.

    Raises:
        ValueError: What `vanilla` and `loo` need, and what to use instead.
    """
    first, other = ids[0], next((token for token in ids if token != ids[0]), ids[0])
    if not backbone.config.is_encoder_decoder:
        tokens = torch.tensor([[first, first], [first, other]], device=input_device(backbone))
        hidden = run_backbone(backbone, -1, input_ids=tokens, **without_cache(backbone))[1][0][:, 0]
        if are_close(hidden[:1], hidden[1:], backbone.dtype):
            return
    raise ValueError(
        f"{type(backbone).__name__} reads a text in both directions, so that each query would change what it makes of "
        'the examples before it: protocols "vanilla" and "loo" need a causal language model. Use protocol="stream".'
    )


__all__ = ["WrittenPrompt", "leave_one_out_orders", "read_prompt", "read_support", "write_prompt"]
