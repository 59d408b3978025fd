"""Strategies for continuations of a shared prefix, with equal results.

`packed`: continuations stand one after another in a few rows; a mask lets each attend to the prefix and to itself, and
its positions continue those of the prefix. `batched`: continuations are rows of a batch, each with a copy of the
prefix's keys and values. `off`: rows of a batch repeat the whole prompt.
"""

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import input_device, rows_beyond_switch, run_views, without_cache
from transformers_tart.embeddings.pooling import pool_spans
from transformers_tart.embeddings.prompts import Continuation, Prefix
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.kv_cache import accepts, cache_argument


Continuations: TypeAlias = Sequence[Continuation]
Views: TypeAlias = Sequence[View]

# Tokens of a full row. Every token is scored against all others of its row, of which only those of its own
# continuation count: a row of a quarter of the prefix's length costs a quarter more.
CPU_ROW, ACCELERATOR_ROW = 256, 2048
ROWS_TRIED = 4  # times as many rows as hold all continuations: short rows are scored faster, and hold more padding
KEYS_PER_PASS = 1024  # to score which costs a token about as much as the rest of a small model
COPIED_BYTES = 2**29  # of the copies of the prefix in one forward pass

# Global, since threads may hold one backbone through different objects, none of which could own the lock.
_REPLACING = threading.Lock()


def packed_shape(backbone: PreTrainedModel, prefix: Prefix) -> tuple[int, int]:
    """Return the most rows of a packed batch, and the tokens that fill a row."""
    tokens = max(CPU_ROW if input_device(backbone).type == "cpu" else ACCELERATOR_ROW, prefix.length // 4)
    if has_linear_biases(backbone):  # which are the same for all rows
        return 1, tokens
    room = max(1, COPIED_BYTES // max(1, 0 if prefix.cache is None else prefix.cache.nbytes))
    return min(room, prefix.most_rows or room), tokens


def _encode_packed(backbone: PreTrainedModel, views: Views, prefix: Prefix, continuations: Continuations) -> Tensor:
    rows = _fill_rows([len(each.ids) for each in continuations], *packed_shape(backbone, prefix), prefix.length)
    ids, owner, place, ending, offset = _lay_out([[continuations[i] for i in row] for row in rows], backbone)
    positions = prefix.length + place - offset
    own = (owner[:, :, None] == owner[:, None]) & (place[:, :, None] >= place[:, None])
    own &= (ending[:, None] == 0) | (ending[:, :, None] == ending[:, None])
    visible = pad(own, (prefix.length, 0), value=True)
    before = torch.arange(prefix.length, device=ids.device).expand(len(ids), -1)
    key_positions = torch.cat([before, positions], dim=1)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": additive_masks(backbone, visible, positions, key_positions),
    }
    if accepts(backbone, "position_ids"):
        inputs["position_ids"] = positions
    if prefix.cache is None:
        inputs.update(without_cache(backbone))
    else:
        inputs.update({cache_argument(backbone): prefix.cache.cache(), "use_cache": True})
    with _linear_biases(backbone, key_positions[0]):
        states = run_views(backbone, views, **inputs)
    spans = [continuations[0].spans] * len(continuations)
    for row, at in zip(rows, range(0, ids.numel(), ids.shape[1]), strict=True):
        for i in row:
            spans[i] = continuations[i].spans_from(at)
            at += len(continuations[i].ids)
    return pool_spans(states, views, spans)


def _fill_rows(lengths: Sequence[int], most: int, tokens: int, prefix_length: int) -> list[list[int]]:
    """Divide continuations, by their numbers, among at most so many rows: those that cost least, padding included."""
    fewest = min(most, -(-sum(lengths) // tokens))
    counts = range(fewest, max(fewest, min(most, len(lengths), ROWS_TRIED * fewest)) + 1)
    divisions = [_divide(lengths, count) for count in counts]

    def cost(rows: list[list[int]]) -> int:
        longest = max(sum(lengths[i] for i in row) for row in rows)
        return len(rows) * longest * (KEYS_PER_PASS + prefix_length + longest)

    return min(divisions, key=cost)


def _divide(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Divide continuations among rows of about equal length."""
    rows = [(0, number, list[int]()) for number in range(min(count, len(lengths)))]
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):  # to the shortest row
        length, number, members = rows[0]
        members.append(i)
        heapq.heapreplace(rows, (length + lengths[i], number, members))
    return [members for _, _, members in rows]


def _lay_out(rows: Sequence[Continuations], backbone: PreTrainedModel) -> tuple[Tensor, ...]:
    """Return of each token (rows, length) its id, owner, place, ending and distance from the first ending.

    Padding has no owner: 0.
    """
    flat = [each for row in rows for each in row]
    lengths = torch.tensor([len(each.ids) for each in flat])
    place = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    owner = torch.arange(1, len(flat) + 1).repeat_interleave(lengths)
    ids = torch.tensor([token for each in flat for token in each.ids])
    described = torch.stack([ids, owner, place, *_endings(flat)], dim=1)
    sizes = [sum(len(each.ids) for each in row) for row in rows]
    return pad_sequence(described.split(sizes), batch_first=True).to(input_device(backbone)).unbind(-1)


def _endings(continuations: Continuations) -> tuple[Tensor, Tensor]:
    """Return the number of the ending of each token, 0 for those of stems, and its distance from the first ending."""
    numbers, offsets = [], []
    for each in continuations:
        bounds = (*each.forks, len(each.ids)) if each.forks else (len(each.ids), len(each.ids))
        numbers += [0] * bounds[0] + [n + 1 for n, (at, to) in enumerate(pairwise(bounds)) for _ in range(to - at)]
        offsets += [0] * bounds[0] + [at - bounds[0] for at, to in pairwise(bounds) for _ in range(to - at)]
    return torch.tensor(numbers), torch.tensor(offsets)


def additive_masks(backbone: PreTrainedModel, visible: Tensor, positions: Tensor, key_positions: Tensor) -> Any:
    """Return masks (rows, 1, n, keys) to be added to scores: one, or one for each type of layer."""
    config = backbone.config.get_text_config()
    window, layer_types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    near = visible
    if window is not None:
        near = visible & (positions[:, :, None] - key_positions[:, None] < window)
    by_type = {"full_attention": visible, "sliding_attention": near}
    masks = {}
    for layer_type in set(layer_types or ["sliding_attention"]):
        mask = torch.zeros(visible.shape, dtype=backbone.dtype, device=visible.device)
        masks[layer_type] = mask.masked_fill_(~by_type[layer_type], torch.finfo(mask.dtype).min)[:, None]
    return masks if layer_types is not None else masks["sliding_attention"]


def has_linear_biases(backbone: PreTrainedModel) -> bool:
    """Return whether attention is biased by the distance of rows (ALiBi), whatever the positions given."""
    return hasattr(type(backbone), "build_alibi_tensor")


@contextmanager
def _linear_biases(backbone: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Make attention that is biased by distance (ALiBi) take these positions for the keys of a row.

    The method of the backbone is replaced, for one thread at a time; other threads call the original.
    """
    original: Callable | None = getattr(type(backbone), "build_alibi_tensor", None)
    if original is None:
        yield
        return

    owner = threading.get_ident()

    def build(mask: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if threading.get_ident() != owner:
            return original(backbone, mask, *args, **kwargs)
        straight = torch.ones(1, int(positions.max()) + 1, dtype=torch.long, device=mask.device)
        return original(backbone, straight, *args, **kwargs)[..., positions.to(mask.device)]

    with _REPLACING:
        backbone.build_alibi_tensor = build  # type: ignore[assignment]
        try:
            yield
        finally:
            del backbone.build_alibi_tensor


def _encode_whole(backbone: PreTrainedModel, views: Views, prefix: Prefix, continuations: Continuations) -> Tensor:
    forks = [tuple(prefix.length + at for at in each.forks) for each in continuations]
    whole = [
        Continuation((*prefix.ids, *c.ids), c.spans_from(prefix.length), own)
        for c, own in zip(continuations, forks, strict=True)
    ]
    return _encode_batched(backbone, views, Prefix(), whole)


def _encode_batched(backbone: PreTrainedModel, views: Views, prefix: Prefix, continuations: Continuations) -> Tensor:
    if prefix.cache is None and prefix.ids:
        return _encode_whole(backbone, views, prefix, continuations)
    if any(each.forks for each in continuations):
        return _encode_straight(backbone, views, prefix, continuations)
    inputs, cached = dict[str, Any](without_cache(backbone)), prefix.length
    if prefix.cache is not None:
        inputs = {cache_argument(backbone): prefix.cache.cache(), "use_cache": True}
    ids = pad_sequence([torch.tensor(each.ids) for each in continuations], batch_first=True)
    lengths = torch.tensor([cached + len(each.ids) for each in continuations])
    mask = (torch.arange(cached + ids.shape[1]) < lengths[:, None]).long()
    states = run_views(backbone, views, input_ids=ids, attention_mask=mask, **inputs)
    rows = [
        pool_spans([[hidden[i : i + 1] for hidden in layers] for layers in states], views, [each.spans])
        for i, each in enumerate(continuations)
    ]
    return torch.cat(rows)


def _encode_straight(backbone: PreTrainedModel, views: Views, prefix: Prefix, continuations: Continuations) -> Tensor:
    """Encode each ending of continuations that fork in a row of its own."""
    rows = [each.straight() for each in continuations]
    flat = [each for row in rows for each in row]
    alone = rows_beyond_switch(backbone, [prefix.length + len(each.ids) for each in flat])
    batches = [[each] for each in flat] if alone else [flat]
    found = iter(torch.cat([_encode_batched(backbone, views, prefix, batch) for batch in batches]))
    joined = []
    for each, row in zip(continuations, rows, strict=True):
        parts = [split_views(next(found), views) for _ in row]
        spans = each.spans if len(each.spans) == len(views) else each.spans * len(views)
        joined.append(torch.cat([parts[each.ending_of(span)][i] for i, span in enumerate(spans)]))
    return torch.stack(joined)


STRATEGIES: dict[str, Callable[[PreTrainedModel, Views, Prefix, Continuations], Tensor]] = {
    "packed": _encode_packed,
    "batched": _encode_batched,
    "off": _encode_whole,
}
