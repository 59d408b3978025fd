"""Shared-prefix encoding: run the prefix of many prompts once and reuse its KV cache for every continuation.

`prefix_sharing="auto"` takes the first strategy that reproduces the embeddings of whole prompts for the prompt at
hand, so no family of backbones is named here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.forward import (
    are_close,
    input_device,
    rows_beyond_switch,
    run_views,
    text_encoder,
    without_cache,
)
from transformers_tart.backbones.traits import BackboneTraits, ProbeResult
from transformers_tart.embeddings.batching import Batcher, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.pooling import pool_spans
from transformers_tart.embeddings.prefix_strategies import COPIED_BYTES, STRATEGIES, packed_shape
from transformers_tart.embeddings.prompts import Continuation, Prefix
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.kv_cache import PrefixCache, cache_argument


logger = logging.get_logger(__name__)

PROBE_TOKENS = 16  # of the continuation by which a strategy is chosen
PROBE_VIEWS = (View("probe", layers="all"),)
UNSUPPORTED = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class PrefixEncoder:
    """Encoder of prefixes and of their continuations."""

    traits: BackboneTraits
    views: tuple[View, ...] = PROBE_VIEWS
    cache: EmbeddingCache | None = None  # of embeddings of continuations
    prefix_sharing: str = "auto"  # or one of `STRATEGIES`

    @property
    def backbone(self) -> PreTrainedModel:
        """The part of the backbone that reads texts."""
        return text_encoder(self.traits.backbone)

    def start(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]] = (), max_query_tokens: int | None = None
    ) -> tuple[Prefix, Tensor]:
        """Encode a prefix by the strategy that suits continuations of at most `max_query_tokens`; see [`extend`]."""
        empty = Prefix(strategy=self.prefix_sharing, runtime=self.traits.runtime)
        if self.prefix_sharing != "auto":
            return self.extend(empty, ids, spans)
        known = self.traits.prefix_sharing.get(empty.runtime, ProbeResult())
        if len(ids) <= known.length:
            return self.extend(replace(empty, strategy=known.strategy), ids, spans)
        again = tuple(ids[-min(PROBE_TOKENS, max_query_tokens or PROBE_TOKENS) :])
        probe, prober = Continuation(again, ((0, len(again)),)), replace(self, views=PROBE_VIEWS, cache=None)
        expected = prober.embed(Prefix(tuple(ids), strategy="off"), [probe])
        for strategy in ("packed", "batched"):
            try:
                prefix, embeddings = self.extend(replace(empty, strategy=strategy), ids, spans)
                # only the right masks and positions give the right embedding at the end of the second of two full rows
                full = replace(prefix, most_rows=2)
                count = self._limit(full, None).max_tokens // len(again) if strategy == "packed" else 2
                found = prober.embed(full, [probe] * max(2, count))
                if are_close(found[-1:], expected, self.backbone.dtype):
                    break
            except torch.OutOfMemoryError:
                raise
            except UNSUPPORTED as err:
                logger.debug(f"{type(self.backbone).__name__} does not support {strategy} prompts: {err!r}")
        else:
            prefix, embeddings = self.extend(replace(empty, strategy="off"), ids, spans)
        self.traits.prefix_sharing[empty.runtime] = ProbeResult(prefix.strategy, len(ids))
        if not known.length or prefix.strategy != known.strategy:
            logger.info(f"{type(self.backbone).__name__}: prefix_sharing={prefix.strategy!r}.")
        return prefix, embeddings

    def extend(
        self, prefix: Prefix, ids: Sequence[int], spans: Sequence[tuple[int, int]] = ()
    ) -> tuple[Prefix, Tensor]:
        """Extend a prefix; return it with the embeddings (s, layers, hidden) of spans of the new token ids."""
        longer = replace(prefix, ids=(*prefix.ids, *ids))
        if not ids or (prefix.strategy == "off" and not spans):
            return longer, torch.empty(0)
        tokens, inputs = longer.ids, dict[str, Any](without_cache(self.backbone))
        if prefix.strategy == "off":
            spans = [(begin + prefix.length, end + prefix.length) for begin, end in spans]
        else:
            cache = DynamicCache() if prefix.cache is None else prefix.cache.growing_cache()
            tokens, inputs = tuple(ids), {cache_argument(self.backbone): cache, "use_cache": True}
        states = run_views(self.backbone, self.views, input_ids=torch.tensor([tokens]), **inputs)
        if prefix.strategy != "off":
            longer = replace(longer, cache=PrefixCache.from_cache(cache))
        return longer, pool_spans(states, self.views, [[span] for span in spans]) if spans else torch.empty(0)

    def embed(self, prefix: Prefix, continuations: Sequence[Continuation], batcher: Batcher | None = None) -> Tensor:
        """Embed the spans of continuations: (n, layers, hidden) float32."""
        lengths = [prefix.length + len(each.ids) for each in continuations]
        alone = rows_beyond_switch(self.backbone, lengths)
        if prefix.strategy != "off":
            lengths = [length - prefix.length for length in lengths]

        def work(chosen: list[int]) -> Tensor:
            encode = STRATEGIES["off" if chosen[0] in alone else prefix.strategy]
            members = [continuations[i] for i in chosen]
            return self._add_query_prefix(prefix, encode(self.backbone, self.views, prefix, members), members)

        keys = (
            []
            if self.cache is None
            else [
                self.cache.key(prefix.ids, [prefix.query_prefix_length], c.ids, *c.spans, c.forks, views=self.views)
                for c in continuations
            ]
        )
        own, packed = self._limit(prefix, batcher), prefix.strategy == "packed"
        budget = own.max_tokens
        result = run_batches(own, lengths, work, packed, alone=alone, cache=self.cache, keys=keys)
        if batcher is not None and own.max_tokens < budget:
            batcher.max_tokens = own.max_tokens
        return result

    def _add_query_prefix(self, prefix: Prefix, found: Tensor, members: Sequence[Continuation]) -> Tensor:
        """Pool the embeddings (n, layers, hidden) of spans with that of the query prefix before each of them."""
        if prefix.query_prefix is None:
            return found
        length, added = prefix.query_prefix_length, split_views(prefix.query_prefix, self.views)
        own = torch.tensor([each.spans[0][1] - each.spans[0][0] for each in members], device=found.device)
        share = (own.to(found.dtype) / (own + length))[:, None, None]
        pooled = {
            "last": lambda found, before: found,
            "first": lambda found, before: before.expand_as(found),
            "max": torch.maximum,
            "mean": lambda found, before: share * found + (1 - share) * before,
        }
        parts = zip(self.views, split_views(found, self.views), added, strict=True)
        return torch.cat([pooled[view.pooling](own, before) for view, own, before in parts], dim=1)

    def _limit(self, prefix: Prefix, batcher: Batcher | None) -> Batcher:
        """Return a copy of a batcher, with the limits of the strategy."""
        batcher = Batcher.on(input_device(self.backbone)) if batcher is None else replace(batcher)
        if prefix.strategy == "packed":
            batcher.max_tokens = min(batcher.max_tokens, math.prod(packed_shape(self.backbone, prefix)))
        elif prefix.strategy == "batched" and prefix.cache is not None:
            rows = max(1, COPIED_BYTES // prefix.cache.nbytes)
            batcher.max_rows = min(rows, batcher.max_rows or rows)
        return batcher
