"""In-context prompting of a causal language model.

A prompt holds the labeled examples and the query, and the model's likelihood of each label name decides. The beginning
that all prompts share is encoded once, and so is each query for all labels.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from transformers_tart.backbones.forward import backbone_max_length, cache_argument, rows_beyond_switch
from transformers_tart.embeddings import input_device
from transformers_tart.embeddings.batching import Batcher, run_batches
from transformers_tart.embeddings.prefix_cache import PrefixCache
from transformers_tart.inputs.balance import balanced_tails
from transformers_tart.inputs.tokenization import cut, encode, warn_if_truncated


QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"
QUERY_SHARE = 0.25  # of the context, for the longest query
CACHE_BYTES = 2**29  # of copies of the shared prefix in a forward pass


class PromptResult(NamedTuple):
    """Log-probabilities (n, classes) float32 on the CPU, and the number of examples in the prompt."""

    log_probs: Tensor
    examples: int


class Row(NamedTuple):
    """The tokens of a prompt with a label, the last `label_length` of which are the label."""

    ids: list[int]
    label_length: int


def can_be_prompted(config: PreTrainedConfig) -> bool:
    """Return whether a config describes a causal language model that was saved with its vocabulary head."""
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
    Return the mean log-probability of the tokens of each label name after the labeled examples and the query.

    Examples that do not fit into the context are dropped, the first ones of each class, to leave at most as many of
    one class as of another. A text is truncated, on the side of the tokenizer, where a query would take more than a
    quarter of the context, or an example more than the share of its class in the rest, which is logged once.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            A causal language model with its vocabulary head, and its tokenizer.
        support_texts (`list[str]`), support_labels (`list[int]`):
            k texts and indices into `label_names`, in the order of the prompt.
        query_texts (`list[str]`), label_names (`list[str]`):
            n texts, and the names of the classes in the prompt.
        batch_size (`int`, *optional*):
            Largest number of pairs of query and label in a forward pass; by a budget of tokens when not given, and
            smaller where copies of a long prompt would fill the memory.

    Raises:
        ValueError: Without examples or queries, or when the context does not hold an example of each class.
    """
    if not support_texts or not query_texts:
        raise ValueError(f"There are {len(support_texts)} examples and {len(query_texts)} queries to prompt with.")
    limit = backbone_max_length(model)
    if limit is not None:
        support_texts, query_texts = _truncate(
            tokenizer, support_texts, support_labels, query_texts, label_names, limit
        )
    blocks = [_write_example(text, label_names[i]) for text, i in zip(support_texts, support_labels, strict=True)]
    questions = [QUESTION.format(text=text) for text in query_texts]
    rows, kept = _write_prompts(tokenizer, blocks, support_labels, questions, label_names, limit)
    return PromptResult(_score_all(model, rows, len(label_names), batch_size).cpu(), kept)


def _write_example(text: str, label: str) -> str:
    return QUESTION.format(text=text) + ANSWER.format(label=label) + SEPARATOR


def _truncate(
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[str],
    support_labels: Sequence[int],
    query_texts: Sequence[str],
    label_names: Sequence[str],
    limit: int,
) -> tuple[list[str], list[str]]:
    """Truncate texts so that a context holds a query and an example of each class."""
    label = max(label_names, key=len)
    asked, shown = _encode(
        tokenizer, [QUESTION.format(text="") + ANSWER.format(label=label), _write_example("", label)]
    )
    longest = max(len(ids) for ids in _encode(tokenizer, query_texts))
    query_limit = min(longest, max(1, int(QUERY_SHARE * limit) - len(asked) - 1))
    room = (limit - query_limit - len(asked) - 1) // len(set(support_labels)) - len(shown)
    return _shorten(tokenizer, support_texts, max(1, room)), _shorten(tokenizer, query_texts, query_limit)


def _shorten(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> list[str]:
    """Truncate texts to a number of tokens and decode them again; shorter ones stay as they are."""
    encoded, side = _encode(tokenizer, texts), tokenizer.truncation_side
    warn_if_truncated(encoded, limit)
    return [
        text if len(ids) <= limit else str(tokenizer.decode(list(cut(ids, limit, side))))
        for text, ids in zip(texts, encoded, strict=True)
    ]


def _write_prompts(
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[str],
    labels: Sequence[int],
    questions: Sequence[str],
    label_names: Sequence[str],
    limit: int | None,
) -> tuple[list[Row], int]:
    """Return the prompts of each question with each label, and the number of examples in them."""
    lengths = [len(ids) for ids in _encode(tokenizer, blocks)]
    longest = max(len(ids) for ids in _encode(tokenizer, questions))
    for kept in balanced_tails(labels):
        if limit is not None and sum(lengths[i] for i in kept) + longest > limit:
            continue
        shown = "".join(blocks[i] for i in kept)
        rows = _tokenize(tokenizer, [shown + question for question in questions], label_names)
        if limit is None or max(len(row.ids) for row in rows) <= limit:
            return rows, len(kept)
    raise ValueError(f"The model's context of {limit} tokens does not hold a query and an example of each class.")


def _tokenize(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], label_names: Sequence[str]) -> list[Row]:
    """Tokenize each prompt and label as one text: many tokenizers encode the first word of a text in another way."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    bare = _encode(tokenizer, prompts)
    whole = _encode(tokenizer, [prompt + ANSWER.format(label=label) for prompt in prompts for label in label_names])
    rows = []
    for i, ids in enumerate(whole):
        place, label = divmod(i, len(label_names))
        label_length = len(ids) - len(os.path.commonprefix([bare[place], ids]))
        if label_length == 0:
            raise ValueError(
                f'The label name "{label_names[label]}" adds no token to the prompt; give it a name that does.'
            )
        rows.append(Row(start + ids, label_length))
    return rows


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    return encode(tokenizer, texts, add_special_tokens=False)["input_ids"]


def _score_all(model: PreTrainedModel, rows: Sequence[Row], num_labels: int, batch_size: int | None) -> Tensor:
    """Return the mean log-probabilities (n, labels) of the rows of n queries, one for each label."""
    queries = [rows[at : at + num_labels] for at in range(0, len(rows), num_labels)]
    lengths, batcher = [len(row.ids) for row in rows], Batcher.on(input_device(model), batch_size)
    alone = rows_beyond_switch(model, lengths)
    shared = min(len(os.path.commonprefix([row.ids for row in rows])), *map(_stem_length, queries))
    prefix = None if shared < 1 or alone else _encode_prefix(model, rows[0].ids[:shared])
    if prefix is None:
        scores = run_batches(batcher, lengths, lambda c: _score(model, None, [rows[i] for i in c]), alone=alone)
        return scores.reshape(-1, num_labels)
    by_length: dict[int, list[int]] = {}
    for i, query in enumerate(queries):
        by_length.setdefault(_stem_length(query) - shared, []).append(i)
    batcher.max_rows = min(batcher.max_rows or len(rows), max(1, CACHE_BYTES // prefix.nbytes))
    result = torch.empty(len(queries), num_labels, dtype=torch.float32)
    # stems of one length need no padding before their labels
    for length, members in by_length.items():
        work = partial(_score_stems, model, prefix, [queries[i] for i in members], shared + length)
        result[members] = run_batches(batcher, [max(length, 1)] * len(members), work).cpu()
    return result


def _stem_length(query: Sequence[Row]) -> int:
    """Count the tokens that the rows of a query share, without the one before a label, which predicts the label."""
    shared = len(os.path.commonprefix([row.ids for row in query]))
    return min(shared, min(len(row.ids) - row.label_length for row in query) - 1)


def _score_stems(
    model: PreTrainedModel, prefix: PrefixCache, queries: Sequence[Sequence[Row]], length: int, chosen: list[int]
) -> Tensor:
    """Return the mean log-probabilities (chosen, labels) of queries whose rows share a stem of `length` tokens."""
    own, device = [queries[i] for i in chosen], input_device(model)
    longer = prefix.expand(len(own))
    if length > prefix.length:
        cache = longer.growing_cache()
        _run(model, [query[0].ids[prefix.length : length] for query in own], prefix.length, cache, use_cache=True)
        longer = PrefixCache.from_cache(cache)
    tails = [(i, Row(row.ids[length:], row.label_length)) for i, query in enumerate(own) for row in query]
    most = max(1, CACHE_BYTES * len(own) // longer.nbytes)
    scores = []
    for start in range(0, len(tails), most):
        places, rows = zip(*tails[start : start + most], strict=True)
        scores.append(_score(model, longer.select(torch.tensor(places, device=device)), rows))
    return torch.cat(scores).reshape(len(own), -1)


def _encode_prefix(model: PreTrainedModel, ids: list[int]) -> PrefixCache | None:
    """Return the keys and values of a prefix; `None` where the model keeps none that rows can share."""
    output = model(input_ids=torch.tensor([ids], device=input_device(model)), use_cache=True)
    try:
        return PrefixCache.from_cache(getattr(output, cache_argument(model), None))
    except TypeError:
        return None


def _score(model: PreTrainedModel, prefix: PrefixCache | None, rows: Sequence[Row]) -> Tensor:
    """Return the mean log-probabilities (rows,) of the labels."""
    before, cache = (0, None) if prefix is None else (prefix.length, prefix.cache())
    logits, tokens, lengths = _run(model, [row.ids for row in rows], before, cache)
    label_lengths = torch.tensor([row.label_length for row in rows], device=tokens.device)[:, None]
    place = torch.arange(1, tokens.shape[1], device=tokens.device)
    is_label = (place >= lengths - label_lengths) & (place < lengths)
    # of a large vocabulary, only the positions that count are kept in float32
    log_probs = logits[:, :-1][is_label].float().log_softmax(-1).gather(-1, tokens[:, 1:][is_label][:, None])[:, 0]
    return log_probs.new_zeros(is_label.shape).masked_scatter(is_label, log_probs).sum(1) / label_lengths[:, 0]


def _run(
    model: PreTrainedModel, rows: Sequence[list[int]], before: int, cache: Any, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits, the padded tokens and the lengths (n, 1) of rows after a cached prefix of `before` tokens."""
    device = input_device(model)
    tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
    mask = torch.arange(-before, tokens.shape[1], device=device) < lengths
    if cache is not None:
        options[cache_argument(model)] = cache
    return model(input_ids=tokens, attention_mask=mask.long(), **options).logits, tokens, lengths


__all__ = ["PromptResult", "can_be_prompted", "prompt_log_probs"]
