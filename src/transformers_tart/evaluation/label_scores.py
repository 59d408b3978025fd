"""Log-probabilities of labels after prompts, by a causal language model.

The beginning that all prompts share is encoded once, and so is each query for all labels: the state at its end
predicts the first token of each label, and longer labels are endings of the query.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from transformers_tart.backbones.forward import input_device, without_cache
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.prompts import Continuation
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.inputs.views import View


LOGITS_BYTES = 2**27  # of the logits that are in memory at a time


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
