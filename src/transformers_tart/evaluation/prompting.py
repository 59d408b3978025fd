"""In-context prompting: the same language model, asked in words.

The labeled examples are written one after another, then the query, and the model's likelihood of each label name
decides. What all prompts begin with is read once, and so is each query for all labels.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from transformers_tart.backbones.forward import backbone_max_length, cache_argument, returned_cache, switch_length
from transformers_tart.embeddings import input_device
from transformers_tart.embeddings.batching import Batcher, run_batches
from transformers_tart.embeddings.prefix_cache import PrefixCache
from transformers_tart.inputs.balance import balanced_tails
from transformers_tart.inputs.tokenization import cut, encode, warn_if_truncated


QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"
QUERY_SHARE = 0.25  # of the context, that a query may take
CACHE_BYTES = 2**29  # of the copies of the shared beginning that one forward pass may take


class PromptResult(NamedTuple):
    """Log-probabilities (n, classes) float32 on the CPU, and how many examples the prompt had room for."""

    log_probs: Tensor
    examples: int


class Row(NamedTuple):
    """The tokens of a prompt, the last `meant` of which are the label."""

    ids: list[int]
    meant: int


def can_be_prompted(config: PreTrainedConfig) -> bool:
    """Whether a config describes a causal language model that was saved with its vocabulary head."""
    return bool(set(config.architectures or ()) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))


@torch.inference_mode()
def prompt_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[str],
    support_labels: Sequence[int],
    query_texts: Sequence[str],
    label_names: Sequence[str],
    *,
    batch_size: int | None = None,
) -> PromptResult:
    r"""
    Mean log-probability of the tokens of each label name after the labeled examples and the query.

    Where the examples do not fit the model's context, the last ones of each class stay, at most as many of one class
    as of another. A text is truncated, on the tokenizer's side, where a query would take more than a quarter of the
    context, or an example more than its class's share of what is left, which is logged once.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            A causal language model with its vocabulary head, and its tokenizer.
        support_texts (`list[str]`), support_labels (`list[int]`):
            k texts and indices into `label_names`, in the order of the prompt.
        query_texts (`list[str]`):
            n texts.
        label_names (`list[str]`):
            What the prompt calls the classes.
        batch_size (`int`, *optional*):
            Most pairs of query and label of a forward pass; as many as a budget of tokens allows when not given, and
            fewer where copies of a long prompt would fill the memory.

    Returns:
        [`PromptResult`]

    Raises:
        ValueError: Without examples or queries, or when the context does not hold an example of each class.
    """
    if not support_texts or not query_texts:
        raise ValueError(f"There are {len(support_texts)} examples and {len(query_texts)} queries to prompt with.")
    limit = backbone_max_length(model)
    if limit is not None:
        support_texts, query_texts = _cut(tokenizer, support_texts, support_labels, query_texts, label_names, limit)
    blocks = [_block(text, label_names[label]) for text, label in zip(support_texts, support_labels, strict=True)]
    questions = [QUESTION.format(text=text) for text in query_texts]
    rows, kept = _write(tokenizer, blocks, support_labels, questions, label_names, limit)
    return PromptResult(_score_all(model, rows, len(label_names), batch_size).cpu(), kept)


def _block(text: str, label: str) -> str:
    return QUESTION.format(text=text) + ANSWER.format(label=label) + SEPARATOR


def _cut(
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[str],
    support_labels: Sequence[int],
    query_texts: Sequence[str],
    label_names: Sequence[str],
    limit: int,
) -> tuple[list[str], list[str]]:
    """Texts as far as a context has room for a query and an example of each class."""
    label = max(label_names, key=len)
    around_query = len(_encode(tokenizer, QUESTION.format(text="") + ANSWER.format(label=label))) + 1
    around_example = len(_encode(tokenizer, _block("", label)))
    longest = max(len(ids) for ids in _encode_all(tokenizer, query_texts))
    of_query = min(longest, max(1, int(QUERY_SHARE * limit) - around_query))
    of_example = max(1, (limit - of_query - around_query) // len(set(support_labels)) - around_example)
    return _shorten(tokenizer, support_texts, of_example), _shorten(tokenizer, query_texts, of_query)


def _shorten(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> list[str]:
    """Return each text, or what the tokenizer leaves of one that is longer than so many tokens, as text."""
    encoded, side = _encode_all(tokenizer, texts), tokenizer.truncation_side
    warn_if_truncated(encoded, limit)
    return [
        text if len(ids) <= limit else str(tokenizer.decode(list(cut(ids, limit, side))))
        for text, ids in zip(texts, encoded, strict=True)
    ]


def _write(
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[str],
    labels: Sequence[int],
    questions: Sequence[str],
    label_names: Sequence[str],
    limit: int | None,
) -> tuple[list[Row], int]:
    """The whole prompt of each question with each label, and how many examples it holds."""
    lengths = [len(ids) for ids in _encode_all(tokenizer, blocks)]
    longest = max(len(ids) for ids in _encode_all(tokenizer, questions))
    for kept in balanced_tails(labels):
        if limit is not None and sum(lengths[i] for i in kept) + longest > limit:
            continue
        shown = "".join(blocks[i] for i in kept)
        rows = _rows(tokenizer, [shown + question for question in questions], label_names)
        if limit is None or max(len(row.ids) for row in rows) <= limit:
            return rows, len(kept)
    raise ValueError(f"The model's context of {limit} tokens does not hold a query and an example of each class.")


def _rows(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], label_names: Sequence[str]) -> list[Row]:
    """Prompt and each label as one text: many tokenizers write a word differently at the start of a text."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    answers = [ANSWER.format(label=label) for label in label_names]
    bare = _encode_all(tokenizer, prompts)
    whole = _encode_all(tokenizer, [prompt + answer for prompt in prompts for answer in answers])
    rows = []
    for i, ids in enumerate(whole):
        meant = len(ids) - len(os.path.commonprefix([bare[i // len(answers)], ids]))
        if meant == 0:
            label = label_names[i % len(answers)]
            raise ValueError(f'The label name "{label}" adds no token to the prompt; give it a name that does.')
        rows.append(Row(start + ids, meant))
    return rows


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return _encode_all(tokenizer, [text])[0]


def _encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return encode(tokenizer, texts, add_special_tokens=False)["input_ids"]


def _score_all(model: PreTrainedModel, rows: Sequence[Row], num_labels: int, batch_size: int | None) -> Tensor:
    """Mean log-probabilities (n, labels) of the rows of n queries, one for each label."""
    queries = [rows[at : at + num_labels] for at in range(0, len(rows), num_labels)]
    switch, batcher = switch_length(model), Batcher.on(input_device(model), batch_size)
    crossing = [switch is not None and len(row.ids) > switch for row in rows]
    shared = min(len(os.path.commonprefix([row.ids for row in rows])), *map(_stem_length, queries))
    prefix = None if shared < 1 or any(crossing) else _read(model, rows[0].ids[:shared])
    if prefix is None:
        lengths = [len(row.ids) for row in rows]
        scores = run_batches(batcher, lengths, lambda c: _score(model, None, [rows[i] for i in c]), alone=crossing)
        return scores.reshape(-1, num_labels)
    by_length: dict[int, list[int]] = {}
    for i, query in enumerate(queries):
        by_length.setdefault(_stem_length(query) - shared, []).append(i)
    batcher.max_rows = min(batcher.max_rows or len(rows), max(1, CACHE_BYTES // prefix.nbytes))
    result = torch.empty(len(queries), num_labels, dtype=torch.float32)
    # rows of one length need no padding between what is read and what comes after
    for length, members in by_length.items():
        work = partial(_score_stems, model, prefix, [queries[i] for i in members], shared + length)
        result[members] = run_batches(batcher, [max(length, 1)] * len(members), work).cpu()
    return result


def _stem_length(query: Sequence[Row]) -> int:
    """Tokens that the rows of a query begin with; the one before a label predicts it, and stays with the label."""
    return min(
        len(os.path.commonprefix([row.ids for row in query])), min(len(row.ids) - row.meant for row in query) - 1
    )


def _score_stems(
    model: PreTrainedModel, prefix: PrefixCache, queries: Sequence[Sequence[Row]], length: int, chosen: list[int]
) -> Tensor:
    """Mean log-probabilities (chosen, labels): what all rows of a query begin with, `length` tokens, is read once."""
    own, device = [queries[i] for i in chosen], input_device(model)
    longer = prefix.expand(len(own))
    if length > prefix.length:
        cache = longer.growing_cache()
        stems = torch.tensor([query[0].ids[prefix.length : length] for query in own], device=device)
        mask = torch.ones(len(own), length, dtype=torch.long, device=device)
        model(input_ids=stems, attention_mask=mask, use_cache=True, **{cache_argument(model): cache})
        longer = PrefixCache.from_cache(cache)
    tails = [(i, Row(row.ids[length:], row.meant)) for i, query in enumerate(own) for row in query]
    most = max(1, CACHE_BYTES * len(own) // longer.nbytes)
    scores = []
    for start in range(0, len(tails), most):
        places, rows = zip(*tails[start : start + most], strict=True)
        scores.append(_score(model, longer.select(torch.tensor(places, device=device)), rows))
    return torch.cat(scores).reshape(len(own), -1)


def _read(model: PreTrainedModel, ids: list[int]) -> PrefixCache | None:
    """Keys and values of the shared beginning; `None` where the model keeps none that rows can share."""
    output = model(input_ids=torch.tensor([ids], device=input_device(model)), use_cache=True)
    try:
        return PrefixCache.from_cache(returned_cache(model, output))
    except TypeError:
        return None


def _score(model: PreTrainedModel, prefix: PrefixCache | None, rows: Sequence[Row]) -> Tensor:
    """Mean log-probabilities (rows,) of the labels."""
    device = input_device(model)
    tokens = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row.ids) for row in rows], device=device)[:, None]
    meant = torch.tensor([row.meant for row in rows], device=device)[:, None]
    place = torch.arange(tokens.shape[1], device=device)
    mask = place < lengths
    options = {}
    if prefix is not None:
        mask = torch.cat([mask.new_ones(len(rows), prefix.length), mask], dim=1)
        options[cache_argument(model)] = prefix.cache()
    logits = model(input_ids=tokens, attention_mask=mask.long(), **options).logits
    is_meant = (place[1:] >= lengths - meant) & (place[1:] < lengths)
    # of a large vocabulary, only the rows that count are kept in float32
    log_probs = logits[:, :-1][is_meant].float().log_softmax(-1).gather(-1, tokens[:, 1:][is_meant][:, None])[:, 0]
    return log_probs.new_zeros(is_meant.shape).masked_scatter(is_meant, log_probs).sum(1) / meant[:, 0]


__all__ = ["PromptResult", "can_be_prompted", "prompt_log_probs"]
