"""Reads prompts: prefixs once, and their branches in whichever way suits the backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.forward import (
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
from transformers_tart.embeddings.shared_prefix import WAYS, Continuation, Prefix, Reading, plain


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


__all__ = ["Reader"]
