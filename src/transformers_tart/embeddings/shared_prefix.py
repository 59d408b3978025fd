"""Shared-prefix encoding: run the prefix of many prompts once and reuse its KV cache for every continuation.

Continuations are read in one of three ways, with equal results. `shared`: they stand one after another in one row, a
mask lets each attend to the prefix and itself, and positions continue those of the prefix. `copied`: they are rows of
a batch, each with a copy of the prefix's keys and values. `plain`: they are rows that repeat the whole prompt. The
first way that reproduces the plain embeddings of the prompt at hand is used, so no family of backbones is named here.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import accepts, cache_argument, run_backbone, without_cache
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


__all__ = ["WAYS", "Continuation", "Prefix", "Reading", "plain"]
