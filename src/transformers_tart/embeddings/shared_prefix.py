"""Shared-prefix encoding: run the prefix of many prompts once and reuse its KV cache for every continuation.

Continuations are read in one of three ways, with equal results. `shared`: they stand one after another in one row, a
mask lets each attend to the prefix and itself, and positions continue those of the prefix. `copied`: they are rows of
a batch, each with a copy of the prefix's keys and values. `plain`: they are rows that repeat the whole prompt. The
first way that reproduces the plain embeddings of the prompt at hand is used, so no family of backbones is named here.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.forward import (
    accepts,
    are_close,
    cache_argument,
    input_device,
    run_backbone,
    switch_length,
    without_cache,
)
from transformers_tart.embeddings.batching import Batcher, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.pooling import pool_spans
from transformers_tart.embeddings.prefix_cache import PrefixCache


_REPLACING = threading.Lock()


@dataclass(frozen=True)
class Prefix:
    """The beginning of prompts: its token ids, what a backbone keeps of them, and the way its branches are read.

    Where every branch begins alike, the prefix holds that beginning too: `lead` is the embedding (layers, hidden) of
    its last `lead_length` tokens, which belong to the span of every branch. `kind` is that of the reader.
    """

    ids: tuple[int, ...] = ()
    cache: PrefixCache | None = None
    way: str = "shared"
    lead: Tensor | None = None
    lead_length: int = 0
    kind: tuple[object, ...] = ()

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.ids)


@dataclass(frozen=True)
class Continuation:
    """Token ids that continue a prefix, and the span (begin, end) of them that is embedded."""

    ids: tuple[int, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """How a backbone is read: which layers, and how a span becomes an embedding."""

    backbone: PreTrainedModel
    layers: int | str = -1
    pooling: str = "mean"


def _shared(reading: Reading, prefix: Prefix, branches: Sequence[Continuation], device: torch.device) -> Tensor:
    """One row of all branches, each of which sees the prefix and itself."""
    lengths = torch.tensor([len(branch.ids) for branch in branches])
    owner = torch.repeat_interleave(torch.arange(len(branches)), lengths)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(owner)) - first[owner]
    tokens = torch.tensor([[token for branch in branches for token in branch.ids]], device=device)
    positions = prefix.length + place
    own = (owner[:, None] == owner) & (place[:, None] >= place)
    visible = torch.cat([torch.ones(len(owner), prefix.length, dtype=torch.bool), own], dim=1)
    key_positions = torch.cat([torch.arange(prefix.length), positions])
    distance = positions[:, None] - key_positions
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": _masks(reading, visible, distance, device)}
    if accepts(reading.backbone, "position_ids"):
        inputs["position_ids"] = positions[None].to(device)
    if prefix.cache is None:
        inputs.update(without_cache(reading.backbone))
    else:
        inputs.update({cache_argument(reading.backbone): prefix.cache.cache(), "use_cache": True})
    with _linear_biases(reading.backbone, key_positions):
        _, hidden_states = run_backbone(reading.backbone, reading.layers, **inputs)
    spans = [(at + b.span[0], at + b.span[1]) for at, b in zip(first.tolist(), branches, strict=True)]
    return pool_spans(hidden_states, spans, reading.pooling)


def _masks(reading: Reading, visible: Tensor, distance: Tensor, device: torch.device) -> Any:
    """What is added to attention scores (1, 1, n, keys): one mask, or one for each type of layer."""
    config = reading.backbone.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    near = visible if window is None else visible & (distance < window)

    def added(chosen: Tensor) -> Tensor:
        mask = torch.zeros(chosen.shape, dtype=reading.backbone.dtype, device=device)
        return mask.masked_fill_(~chosen.to(device), torch.finfo(mask.dtype).min)[None, None]

    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return added(near)
    by_type = {"full_attention": visible, "sliding_attention": near}
    return {layer_type: added(by_type[layer_type]) for layer_type in set(layer_types)}


@contextmanager
def _linear_biases(backbone: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Let a backbone whose attention is biased by distance (ALiBi) count the keys of a row at these positions.

    One thread at a time: it is the backbone's own method that is replaced, which does as before for other threads.
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


def _copied(reading: Reading, prefix: Prefix, branches: Sequence[Continuation], device: torch.device) -> Tensor:
    """A batch whose rows begin with a copy of the prefix's keys and values."""
    if prefix.cache is None:
        return plain(reading, prefix, branches, device)
    mask = pad_sequence(
        [torch.ones(prefix.length + len(branch.ids), dtype=torch.long) for branch in branches], batch_first=True
    )
    cache = {cache_argument(reading.backbone): prefix.cache.cache()}
    inputs = {**cache, "use_cache": True, "attention_mask": mask.to(device)}
    _, hidden_states = run_backbone(reading.backbone, reading.layers, input_ids=_rows(branches, device), **inputs)
    return _pool_each(hidden_states, [branch.span for branch in branches], reading.pooling)


def plain(reading: Reading, prefix: Prefix, branches: Sequence[Continuation], device: torch.device) -> Tensor:
    """A batch whose rows hold the whole prompt."""
    at = prefix.length
    whole = [Continuation((*prefix.ids, *b.ids), (at + b.span[0], at + b.span[1])) for b in branches]
    mask = _mask([len(branch.ids) for branch in whole])
    inputs = {"input_ids": _rows(whole, device), "attention_mask": mask.to(device), **without_cache(reading.backbone)}
    _, hidden_states = run_backbone(reading.backbone, reading.layers, **inputs)
    return _pool_each(hidden_states, [branch.span for branch in whole], reading.pooling)


def _rows(branches: Sequence[Continuation], device: torch.device) -> Tensor:
    return pad_sequence([torch.tensor(branch.ids) for branch in branches], batch_first=True).to(device)


def _mask(lengths: Sequence[int]) -> Tensor:
    """Return the attention mask (n, longest) int64 of rows that are padded on the right."""
    return pad_sequence([torch.ones(length, dtype=torch.int64) for length in lengths], batch_first=True)


def _pool_each(hidden_states: Sequence[Tensor], spans: Sequence[tuple[int, int]], pooling: str) -> Tensor:
    """One span of each row, without the padding behind it."""
    rows = [
        pool_spans([hidden[i : i + 1, : span[1]] for hidden in hidden_states], [span], pooling)
        for i, span in enumerate(spans)
    ]
    return torch.cat(rows)


WAYS: dict[str, Callable[[Reading, Prefix, Sequence[Continuation], torch.device], Tensor]] = {
    "shared": _shared,
    "copied": _copied,
    "plain": plain,
}


logger = logging.get_logger(__name__)

SAMPLE = 16  # tokens of the branch by which a way is found
# Tokens of a row of branches, at least. Every token is scored against all others of its row, of which only those of
# its own branch count: a row of a quarter of the prefix's length costs a quarter more.
CPU_ROW, ACCELERATOR_ROW = 256, 2048
COPIED_BYTES = 2**29  # of the copies of the prefix in one forward pass
UNSUPPORTED = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)


class Found(NamedTuple):
    """A way in which branches can be read, and the longest prefix for which it was tried."""

    way: str = "plain"
    length: int = 0


_FOUND: WeakKeyDictionary[PreTrainedModel, dict[tuple[object, ...], Found]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Reader(Reading):
    """Reads prefixs and branches, with a cache of the branches' embeddings or without."""

    cache: EmbeddingCache | None = None

    def extend(
        self, prefix: Prefix, ids: Sequence[int], spans: Sequence[tuple[int, int]] = ()
    ) -> tuple[Prefix, Tensor]:
        """Extend a prefix; return it with the embeddings (s, layers, hidden) of spans of the new token ids."""
        if not ids:
            return prefix, torch.empty(0)
        longer = replace(prefix, ids=(*prefix.ids, *ids))
        tokens = torch.tensor([list(ids)], device=input_device(self.backbone))
        if prefix.way == "plain":
            if not spans:
                return longer, torch.empty(0)
            whole = torch.tensor([longer.ids], device=tokens.device)
            _, hidden_states = run_backbone(
                self.backbone, self.layers, input_ids=whole, **without_cache(self.backbone)
            )
            spans = [(begin + prefix.length, end + prefix.length) for begin, end in spans]
            return longer, pool_spans(hidden_states, spans, self.pooling)
        cache = DynamicCache() if prefix.cache is None else prefix.cache.growing_cache()
        inputs = {"input_ids": tokens, cache_argument(self.backbone): cache, "use_cache": True}
        _, hidden_states = run_backbone(self.backbone, self.layers, **inputs)
        longer = replace(longer, cache=PrefixCache.from_cache(cache))
        return longer, pool_spans(hidden_states, spans, self.pooling) if spans else torch.empty(0)

    def start(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], room: int | None = None
    ) -> tuple[Prefix, Tensor]:
        """[`extend`] from nothing, and find the way in which the branches, of at most `room` tokens, are read."""
        known = _FOUND.get(self.backbone, {}).get(self.kind, Found())
        if len(ids) <= known.length:
            return self.extend(Prefix(way=known.way, kind=self.kind), ids, spans)
        whole = Prefix(tuple(ids), way="plain")
        again = tuple(ids[-min(SAMPLE, SAMPLE if room is None else room) :])
        sample = Continuation(again, (0, len(again)))
        trial = replace(self, layers="all", pooling="mean", cache=None)  # every token of every layer
        expected = trial.embed(whole, [sample])
        for way in ("shared", "copied"):
            try:
                prefix, embeddings = self.extend(Prefix(way=way, kind=self.kind), ids, spans)
                # the last of a row as long as any stands where only the right mask and positions give the right answer
                count = max(2, self._batcher(prefix, None).max_tokens // len(again)) if way == "shared" else 2
                found = trial.embed(prefix, [sample] * count)[-1:]
            except torch.OutOfMemoryError:
                raise
            except UNSUPPORTED as err:
                logger.debug(f"{type(self.backbone).__name__} cannot read {way} prompts: {type(err).__name__}: {err}")
                continue
            if are_close(found, expected, self.backbone.dtype):
                break
        else:
            prefix, embeddings = self.extend(Prefix(way="plain", kind=self.kind), ids, spans)
        _FOUND.setdefault(self.backbone, {})[self.kind] = Found(prefix.way, len(ids))
        return prefix, embeddings

    @property
    def kind(self) -> tuple[object, ...]:
        """What of a backbone decides how it can be read, and may change while it lives."""
        return self.backbone.dtype, self.backbone.device, self.backbone.config._attn_implementation

    def lead(self, prefix: Prefix, ids: Sequence[int]) -> Prefix:
        """The prefix with what all its branches begin with, which is then read once and counts for each."""
        if not ids:
            return prefix
        longer, embeddings = self.extend(prefix, ids, [(0, len(ids))])
        return replace(longer, lead=embeddings[0], lead_length=len(ids))

    def embed(
        self,
        prefix: Prefix,
        branches: Sequence[Continuation],
        batcher: Batcher | None = None,
        progress: tqdm | None = None,
    ) -> Tensor:
        """Embeddings (n, layers, hidden) float32 of the spans of branches."""
        device, limit = input_device(self.backbone), switch_length(self.backbone)
        crossing = [limit is not None and prefix.length + len(branch.ids) > limit for branch in branches]

        def work(chosen: list[int]) -> Tensor:
            way = plain if crossing[chosen[0]] else WAYS[prefix.way]
            found = way(self, prefix, [branches[i] for i in chosen], device)
            return self._with_lead(prefix, found, [branches[i].span for i in chosen])

        keys = [] if self.cache is None else [self.cache.key(prefix.ids, b.ids, b.span) for b in branches]
        is_plain = prefix.way == "plain"
        lengths = [is_plain * prefix.length + len(branch.ids) for branch in branches]
        own = self._batcher(prefix, batcher)
        budget = own.max_tokens
        packed = prefix.way == "shared"
        result = run_batches(
            own, lengths, work, packed, alone=crossing, cache=self.cache, keys=keys, progress=progress
        )
        if batcher is not None and own.max_tokens < budget:
            batcher.max_tokens = own.max_tokens
        return result

    def _with_lead(self, prefix: Prefix, found: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
        """Embeddings (n, layers, hidden) of spans together with what all branches begin with."""
        if prefix.lead is None or self.pooling == "last":
            return found
        if self.pooling == "first":
            return prefix.lead.expand_as(found)
        if self.pooling == "max":
            return torch.maximum(found, prefix.lead)
        own = torch.tensor([end - begin for begin, end in spans], device=found.device)
        share = (own.to(found.dtype) / (own + prefix.lead_length))[:, None, None]
        return share * found + (1 - share) * prefix.lead

    def _batcher(self, prefix: Prefix, given: Batcher | None) -> Batcher:
        """How branches of a prefix become batches, within what is given."""
        device = input_device(self.backbone)
        batcher = replace(Batcher.on(device) if given is None else given)
        if prefix.way == "shared":
            row = CPU_ROW if device.type == "cpu" else ACCELERATOR_ROW
            batcher.max_tokens = min(batcher.max_tokens, max(row, prefix.length // 4))
        elif prefix.way == "copied" and prefix.cache is not None:
            size = sum(tensor.nbytes for layer in prefix.cache.layers for tensor in layer)
            rows = max(1, COPIED_BYTES // size)
            batcher.max_rows = rows if batcher.max_rows is None else min(rows, batcher.max_rows)
        return batcher


__all__ = ["WAYS", "Continuation", "Prefix", "Reader", "Reading", "plain"]
