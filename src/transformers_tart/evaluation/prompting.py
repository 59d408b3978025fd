"""In-context prompting of a causal language model.

A prompt holds the labeled examples and the query, and the model's likelihood of each label name decides. The beginning
that all prompts share is encoded once, and so is each query for all labels.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from transformers_tart.backbones.forward import backbone_max_length
from transformers_tart.evaluation.label_scores import Row, score_labels
from transformers_tart.inputs.balance import balanced_tails
from transformers_tart.inputs.tokenization import cut, encode, warn_if_truncated


QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"
QUERY_SHARE = 0.25  # of the context, for the longest query


class PromptResult(NamedTuple):
    """Log-probabilities (n, classes) float32 on the CPU, and the number of examples in the prompt."""

    log_probs: Tensor
    examples: int


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
    max_length: int | None = None,
    max_prompt: int | None = None,
) -> PromptResult:
    r"""
    Return the mean log-probability of the tokens of each label name after the labeled examples and the query.

    Without examples the prompt is the query alone.

    Examples, whose labels are indices into `label_names`, that do not fit into the context are dropped, the first ones
    of each class, to leave at most as many of one class as of another. A text is truncated, on the side of the
    tokenizer, where a query would take more than a quarter of the context, or an example more than the share of its
    class in the rest, which is logged once. `batch_size` is the largest number of queries in a forward pass.
    `max_length` is the longest text in tokens, and `max_prompt` the longest prompt where that is less than the
    context.

    Raises:
        ValueError: Without queries, or when the context does not hold an example of each class.
    """
    if not query_texts:
        raise ValueError("There are no queries to prompt with.")
    limits = [limit for limit in (backbone_max_length(model), max_prompt) if limit is not None]
    writer = _Writer(tokenizer, label_names, support_labels, min(limits, default=None))
    if max_length is not None:
        support_texts, query_texts = (_shorten(tokenizer, texts, max_length) for texts in (support_texts, query_texts))
    support_texts, query_texts = writer.truncate(support_texts, query_texts)
    rows, kept = writer.write(support_texts, [QUESTION.format(text=text) for text in query_texts])
    return PromptResult(score_labels(model, rows, len(label_names), batch_size).cpu(), kept)


@dataclass(frozen=True)
class _Writer:
    """Writer of prompts for a context of `limit` tokens. Each prompt and label is tokenized as one text: many
    tokenizers encode the first word of a text in another way.
    """

    tokenizer: PreTrainedTokenizerBase
    label_names: Sequence[str]
    labels: Sequence[int]  # of the examples
    limit: int | None

    def truncate(self, support: Sequence[str], queries: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Truncate texts so that the context holds a query and an example of each class."""
        if self.limit is None:
            return support, queries
        question, label = QUESTION.format(text=""), ANSWER.format(label=max(self.label_names, key=len))
        asked, shown = map(len, self._encode([question + label, question + label + SEPARATOR]))
        longest = max(map(len, self._encode(queries)))
        query_limit = min(longest, max(1, int(QUERY_SHARE * self.limit) - asked - 1))
        room = (self.limit - query_limit - asked - 1) // max(1, len(set(self.labels))) - shown
        return _shorten(self.tokenizer, support, max(1, room)), _shorten(self.tokenizer, queries, query_limit)

    def write(self, support: Sequence[str], questions: Sequence[str]) -> tuple[list[Row], int]:
        """Return the prompts of each question with each label, and the number of examples in them."""
        answers = [ANSWER.format(label=self.label_names[i]) for i in self.labels]
        blocks = [
            QUESTION.format(text=text) + answer + SEPARATOR for text, answer in zip(support, answers, strict=True)
        ]
        lengths = list(map(len, self._encode(blocks)))
        longest = max(map(len, self._encode(questions)))
        for kept in balanced_tails(self.labels) if self.labels else [[]]:
            if self.limit is not None and sum(lengths[i] for i in kept) + longest > self.limit:
                continue
            shown = "".join(blocks[i] for i in kept)
            rows = self._tokenize([shown + question for question in questions])
            if self.limit is None or max(len(row.ids) for row in rows) <= self.limit:
                return rows, len(kept)
        raise ValueError(
            f"The model's context of {self.limit} tokens does not hold a query and an example of each class."
        )

    def _tokenize(self, prompts: Sequence[str]) -> list[Row]:
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        pairs = [
            (bare, prompt, name)
            for bare, prompt in zip(self._encode(prompts), prompts, strict=True)
            for name in self.label_names
        ]
        whole = self._encode([prompt + ANSWER.format(label=name) for _, prompt, name in pairs])
        rows = []
        for ids, (bare, _, name) in zip(whole, pairs, strict=True):
            label_length = len(ids) - len(os.path.commonprefix([bare, ids]))
            if label_length == 0:
                raise ValueError(f'The label name "{name}" adds no token to the prompt; give it a name that does.')
            rows.append(Row(start + ids, label_length))
        return rows

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return encode(self.tokenizer, texts, add_special_tokens=False)["input_ids"] if texts else []


def _shorten(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> list[str]:
    """Truncate texts to a number of tokens and decode them again; shorter ones stay as they are."""
    encoded = encode(tokenizer, texts, add_special_tokens=False)["input_ids"] if texts else []
    warn_if_truncated(encoded, limit)
    return [
        text if len(ids) <= limit else str(tokenizer.decode(list(cut(ids, limit, tokenizer.truncation_side))))
        for text, ids in zip(texts, encoded, strict=True)
    ]
