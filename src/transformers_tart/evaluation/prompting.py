"""In-context prompting: the same language model, asked in words.

The labelled examples are written one after another, then the query, and the model's likelihood of each label name
decides. What all prompts begin with is read once.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from transformers_tart.balance import balanced_tails
from transformers_tart.embeddings import input_device
from transformers_tart.tokenization import backbone_max_length


QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"
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
    batch_size: int = 32,
) -> PromptResult:
    r"""
    Mean log-probability of the tokens of each label name after the labelled examples and the query.

    Where the examples do not fit the model's context, the last ones of each class stay, at most as many of one class
    as of another.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            A causal language model with its vocabulary head, and its tokenizer.
        support_texts (`list[str]`), support_labels (`list[int]`):
            k texts and indices into `label_names`, in the order of the prompt.
        query_texts (`list[str]`):
            n texts.
        label_names (`list[str]`):
            What the prompt calls the classes.
        batch_size (`int`, *optional*, defaults to 32):
            Most pairs of query and label of a forward pass; fewer where copies of a long prompt would fill the memory.

    Returns:
        [`PromptResult`]

    Raises:
        ValueError: Without examples or queries, or when a query leaves no room for an example of each class.
    """
    if not support_texts or not query_texts:
        raise ValueError(f"There are {len(support_texts)} examples and {len(query_texts)} queries to prompt with.")
    blocks = [
        QUESTION.format(text=text) + ANSWER.format(label=label_names[label]) + SEPARATOR
        for text, label in zip(support_texts, support_labels, strict=True)
    ]
    questions = [QUESTION.format(text=text) for text in query_texts]
    rows, kept = _write(tokenizer, blocks, support_labels, questions, label_names, backbone_max_length(model))
    # the token before the first one of a label predicts it, and stays with the label
    shared = min(len(os.path.commonprefix([row.ids for row in rows])), min(len(r.ids) - r.meant for r in rows) - 1)
    prefix = _read(model, rows[0].ids[:shared]) if shared > 0 else None
    if prefix is not None:
        rows = [Row(row.ids[shared:], row.meant) for row in rows]
        size = sum(tensor.nbytes for layer in prefix.layers for tensor in (layer.keys, layer.values))  # type: ignore
        batch_size = max(1, min(batch_size, CACHE_BYTES // size))
    scores = [_score(model, prefix, rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
    return PromptResult(torch.cat(scores).reshape(len(questions), len(label_names)).cpu(), kept)


def _write(
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[str],
    labels: Sequence[int],
    questions: Sequence[str],
    label_names: Sequence[str],
    limit: int | None,
) -> tuple[list[Row], int]:
    """The whole prompt of each question with each label, and how many examples it holds."""
    lengths = [len(_encode(tokenizer, block)) for block in blocks]
    for kept in balanced_tails(labels):
        if limit is not None and sum(lengths[i] for i in kept) > limit:
            continue
        shown = "".join(blocks[i] for i in kept)
        rows = [row for question in questions for row in _rows(tokenizer, shown + question, label_names)]
        if limit is None or max(len(row.ids) for row in rows) <= limit:
            return rows, len(kept)
    raise ValueError(f"The model's context of {limit} tokens does not hold a query and an example of each class.")


def _rows(tokenizer: PreTrainedTokenizerBase, prompt: str, label_names: Sequence[str]) -> Iterator[Row]:
    """Prompt and each label as one text: many tokenizers write a word differently at the start of a text."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    bare = _encode(tokenizer, prompt)
    for label in label_names:
        whole = _encode(tokenizer, prompt + ANSWER.format(label=label))
        meant = len(whole) - len(os.path.commonprefix([bare, whole]))
        if meant == 0:
            raise ValueError(f'The label name "{label}" adds no token to the prompt; give it a name that does.')
        yield Row(start + whole, meant)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _read(model: PreTrainedModel, ids: list[int]) -> DynamicCache | None:
    """Keys and values of the shared beginning, for one row; `None` where the model keeps none that can be copied."""
    output = model(input_ids=torch.tensor([ids], device=input_device(model)), use_cache=True)
    cache = getattr(output, "past_key_values", None)
    is_plain = isinstance(cache, DynamicCache) and all(isinstance(layer, DynamicLayer) for layer in cache.layers)
    return cache if is_plain else None


def _score(model: PreTrainedModel, prefix: DynamicCache | None, rows: Sequence[Row]) -> Tensor:
    """Mean log-probabilities (rows,) of the labels."""
    device = input_device(model)
    tokens = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row.ids) for row in rows], device=device)[:, None]
    meant = torch.tensor([row.meant for row in rows], device=device)[:, None]
    place = torch.arange(tokens.shape[1], device=device)
    mask = place < lengths
    options = {}
    if prefix is not None:
        mask = torch.cat([mask.new_ones(len(rows), prefix.get_seq_length()), mask], dim=1)
        options["past_key_values"] = cache = copy.deepcopy(prefix)
        cache.batch_repeat_interleave(len(rows))
    logits = model(input_ids=tokens, attention_mask=mask.long(), **options).logits
    is_meant = (place[1:] >= lengths - meant) & (place[1:] < lengths)
    # of a large vocabulary, only the rows that count are kept in float32
    log_probs = logits[:, :-1][is_meant].float().log_softmax(-1).gather(-1, tokens[:, 1:][is_meant][:, None])[:, 0]
    return log_probs.new_zeros(is_meant.shape).masked_scatter(is_meant, log_probs).sum(1) / meant[:, 0]


__all__ = ["PromptResult", "can_be_prompted", "prompt_log_probs"]
