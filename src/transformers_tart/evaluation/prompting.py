"""In-context prompting of a causal language model.

A prompt holds the labeled examples and the query, and the model's likelihood of each label name decides. The beginning
that all prompts share is encoded once, and so is each query for all labels.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import ModelOutput

from transformers_tart.backbones.forward import backbone_max_length, input_device, without_cache
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.prompts import Continuation
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.inputs.balance import balanced_tails
from transformers_tart.inputs.tokenization import cut, encode, warn_if_truncated
from transformers_tart.inputs.views import View


LOGITS_BYTES = 2**27  # of the logits that are in memory at a time
QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"
QUERY_SHARE = 0.25  # of the context, for the longest query


class Row(NamedTuple):
    """The tokens of a prompt with a label, the last `label_length` of which are the label."""

    ids: list[int]
    label_length: int


class _Query(NamedTuple):
    """The tokens that the rows of a query share, and what follows them."""

    stem: list[int]
    endings: list[list[int]]  # of each label that has one, without its last token
    places: list[list[int]]  # of each label, the tokens that predict its own, counted from the last one of the stem
    targets: list[list[int]]  # of each label, its tokens


@torch.inference_mode()
def score_labels(model: PreTrainedModel, rows: Sequence[Row], num_labels: int, batch_size: int | None) -> Tensor:
    """Return the mean log-probabilities (n, labels) float32 of the tokens of the labels, by rows of n queries.

    Each query has a row for each label. `batch_size` is the largest number of queries in a forward pass.
    """
    queries = [_join(rows[at : at + num_labels]) for at in range(0, len(rows), num_labels)]
    stems = [query.stem for query in queries]
    shared = min(len(os.path.commonprefix(stems)), *(len(stem) - 1 for stem in stems))
    continued = [_continue(query, shared) for query in queries]
    width = max(len(each.spans) for each in continued)
    views = tuple(View(f"token {i}", pooling="last", layers=-1) for i in range(width))
    encoder = PrefixEncoder(BackboneTraits(model.base_model), views)  # type: ignore[arg-type]
    prefix, _ = encoder.start(stems[0][:shared])
    padded = [Continuation(c.ids, (*c.spans, *c.spans[:1] * (width - len(c.spans))), c.forks) for c in continued]
    states = encoder.embed(prefix, padded, Batcher.on(input_device(model), batch_size))
    places = [[width * i + place for place in label] for i, query in enumerate(queries) for label in query.places]
    targets = [label for query in queries for label in query.targets]
    return _mean_log_probs(model, states.flatten(0, 1), places, targets).reshape(len(queries), num_labels)


def _join(rows: Sequence[Row]) -> _Query:
    """Join the rows of a query, one for each label."""
    whole = [row.ids for row in rows]
    length = min(len(os.path.commonprefix(whole)), *(len(row.ids) - row.label_length for row in rows))
    query = _Query(whole[0][:length], [], [], [])
    at = 1  # place after the stem
    for ids, label_length in rows:
        ending, begin = ids[length:-1], len(ids) - label_length - length  # of the label in what follows the stem
        query.places.append([0 if i == 0 else at + i - 1 for i in range(begin, len(ids) - length)])
        query.targets.append(ids[-label_length:])
        if ending:
            query.endings.append(ending)
            at += len(ending)
    return query


def _continue(query: _Query, shared: int) -> Continuation:
    """Return a query as a continuation of its first tokens; spans are the end of its stem and each later token."""
    stem, forks, ids = query.stem[shared:], list[int](), list(query.stem[shared:])
    for ending in query.endings:
        forks.append(len(ids))
        ids += ending
    return Continuation(tuple(ids), tuple((i - 1, i) for i in range(len(stem), len(ids) + 1)), tuple(forks))


def _mean_log_probs(
    model: PreTrainedModel, states: Tensor, places: Sequence[list[int]], targets: Sequence[list[int]]
) -> Tensor:
    """Return the mean log-probabilities (labels,) of the tokens of labels, by the states that predict them."""
    lengths = torch.tensor([len(label) for label in targets], device=states.device)
    place = torch.tensor([i for label in places for i in label], device=states.device)
    target = torch.tensor([token for label in targets for token in label], device=states.device)
    found = torch.empty(len(place), device=states.device)
    vocabulary = model.config.get_text_config().vocab_size
    size = max(1, LOGITS_BYTES // (4 * vocabulary))
    for start in range(0, len(states), size):
        log_probs = _run_head(model, states[start : start + size]).log_softmax(-1)
        own = ((place >= start) & (place < start + size)).nonzero()[:, 0]
        found[own] = log_probs[place[own] - start, target[own]]
    return torch.stack([part.mean() for part in found.split(lengths.tolist())])


def _run_head(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return the logits (n, vocabulary) of states (n, hidden), by all that the model does after its backbone.

    The vocabulary head computes in float32: in bfloat16 the logits of labels are often equal.
    """

    def replace_states(module: nn.Module, inputs: tuple, output: ModelOutput) -> ModelOutput:
        hidden = output.last_hidden_state  # type: ignore[attr-defined]
        output.last_hidden_state = states[None].to(hidden)
        return output

    def compute_precisely(module: nn.Linear, inputs: tuple, output: Tensor) -> Tensor:
        bias = None if module.bias is None else module.bias.float()
        return linear(inputs[0].float(), module.weight.float(), bias)

    token = torch.zeros(1, 1, dtype=torch.long, device=input_device(model))
    head = model.get_output_embeddings()
    # some language models call a part of their backbone
    hooks: dict[nn.Module, Any] = {
        part: replace_states for part in model.base_model.modules() if isinstance(part, PreTrainedModel)
    }
    if type(head) is nn.Linear:
        hooks[head] = compute_precisely
    with ExitStack() as stack:
        for part, hook in hooks.items():
            stack.callback(part.register_forward_hook(hook).remove)
        return model(input_ids=token, return_dict=True, **without_cache(model)).logits[0].float()


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
