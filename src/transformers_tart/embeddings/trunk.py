"""Prompts that begin alike: what they share, the trunk, is read once, and each branch continues it.

A branch is read in one of three ways, all with the same answer. `shared`: branches stand one after another in one row,
and a mask lets each see the trunk and itself, at the positions that follow the trunk. `copied`: branches are rows of a
batch, each with a copy of the trunk's keys and values. `plain`: branches are rows with the whole prompt. The first
that gives what a backbone gives for a whole prompt is taken, found out on the prompt itself: no backbone is known by
name, and a window or a scaling that begins at some length is met at the length that counts. What was found is
remembered of a backbone as long as it lives.
"""

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

from transformers_tart.embeddings.batching import Batcher, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.pooling import accepts, input_device, pool_spans, run_backbone, without_cache
from transformers_tart.prefix_cache import Prefix


logger = logging.get_logger(__name__)

TRIAL_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3}  # of the largest value; rounding of half precision: 5e-2
SAMPLE = 16  # tokens of the branch by which a way is found
# Tokens of a row of branches, at least. Every token is scored against all others of its row, of which only those of
# its own branch count: a row of a quarter of the trunk's length costs a quarter more.
CPU_ROW, ACCELERATOR_ROW = 256, 2048
COPIED_BYTES = 2**29  # of the copies of the trunk in one forward pass
UNSUPPORTED = (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError)


@dataclass(frozen=True)
class Trunk:
    """The beginning of prompts: its token ids, what a backbone keeps of them, and the way its branches are read.

    Where every branch begins alike, the trunk holds that beginning too: `lead` is the mean (layers, hidden) over its
    last `lead_length` tokens, which belong to the span of every branch.
    """

    ids: tuple[int, ...] = ()
    prefix: Prefix | None = None
    way: str = "shared"
    lead: Tensor | None = None
    lead_length: int = 0

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.ids)


@dataclass(frozen=True)
class Branch:
    """Token ids that continue a trunk, and the span (begin, end) of them that is embedded."""

    ids: tuple[int, ...]
    span: tuple[int, int]


class Found(NamedTuple):
    """A way in which branches can be read, and the longest trunk for which it was tried."""

    way: str = "plain"
    length: int = 0


_FOUND: WeakKeyDictionary[PreTrainedModel, dict[tuple[object, ...], Found]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Reader:
    """How a backbone is read: which layers, and how a span becomes an embedding."""

    backbone: PreTrainedModel
    layers: int | str = -1
    pooling: str = "mean"
    cache: EmbeddingCache | None = None

    def extend(self, trunk: Trunk, ids: Sequence[int], spans: Sequence[tuple[int, int]] = ()) -> tuple[Trunk, Tensor]:
        """Read on after a trunk: the longer trunk, and the embeddings (s, layers, hidden) of spans of the new ids."""
        if not ids:
            return trunk, torch.empty(0)
        longer = replace(trunk, ids=(*trunk.ids, *ids))
        tokens = torch.tensor([list(ids)], device=input_device(self.backbone))
        if trunk.way == "plain":
            if not spans:
                return longer, torch.empty(0)
            whole = torch.tensor([longer.ids], device=tokens.device)
            _, hidden_states = run_backbone(
                self.backbone, self.layers, input_ids=whole, **without_cache(self.backbone)
            )
            spans = [(begin + trunk.length, end + trunk.length) for begin, end in spans]
            return longer, pool_spans(hidden_states, spans, self.pooling)
        cache = DynamicCache() if trunk.prefix is None else trunk.prefix.growing_cache()
        inputs = {"input_ids": tokens, "past_key_values": cache, "use_cache": True}
        _, hidden_states = run_backbone(self.backbone, self.layers, **inputs)
        longer = replace(longer, prefix=Prefix.from_cache(cache))
        return longer, pool_spans(hidden_states, spans, self.pooling) if spans else torch.empty(0)

    def start(
        self, ids: Sequence[int], spans: Sequence[tuple[int, int]], room: int | None = None
    ) -> tuple[Trunk, Tensor]:
        """[`extend`] from nothing, and find the way in which the branches, of at most `room` tokens, are read."""
        known = _FOUND.get(self.backbone, {}).get(self._kind, Found())
        if len(ids) <= known.length:
            return self.extend(Trunk(way=known.way), ids, spans)
        plain = Trunk(tuple(ids), way="plain")
        again = tuple(ids[-min(SAMPLE, SAMPLE if room is None else room) :])
        sample = Branch(again, (0, len(again)))
        trial = replace(self, pooling="mean", cache=None)  # of every token
        expected = trial.embed(plain, [sample])
        for way in ("shared", "copied"):
            try:
                trunk, embeddings = self.extend(Trunk(way=way), ids, spans)
                # the last of a row as long as any stands where only the right mask and positions give the right answer
                count = max(2, self._batcher(trunk).max_tokens // len(again)) if way == "shared" else 2
                found = trial.embed(trunk, [sample] * count)[-1:]
            except torch.OutOfMemoryError:
                raise
            except UNSUPPORTED as err:
                logger.debug(f"{type(self.backbone).__name__} cannot read {way} prompts: {type(err).__name__}: {err}")
                continue
            tolerance = TRIAL_TOLERANCE.get(self.backbone.dtype, 5e-2)
            if (found - expected).abs().max() <= tolerance * expected.abs().max():
                break
        else:
            trunk, embeddings = self.extend(Trunk(way="plain"), ids, spans)
        _FOUND.setdefault(self.backbone, {})[self._kind] = Found(trunk.way, len(ids))
        return trunk, embeddings

    @property
    def _kind(self) -> tuple[object, ...]:
        """What of a backbone decides how it can be read, and may change while it lives."""
        return self.backbone.dtype, self.backbone.device, self.backbone.config._attn_implementation

    def lead(self, trunk: Trunk, ids: Sequence[int]) -> Trunk:
        """The trunk with what all its branches begin with, which is then read once and counts for each."""
        if not ids:
            return trunk
        longer, embeddings = replace(self, pooling="mean").extend(trunk, ids, [(0, len(ids))])
        return replace(longer, lead=embeddings[0], lead_length=len(ids))

    def embed(
        self,
        trunk: Trunk,
        branches: Sequence[Branch],
        batch_size: int | None = None,
        progress: tqdm | None = None,
    ) -> Tensor:
        """Embeddings (n, layers, hidden) float32 of the spans of branches."""
        way, is_plain = WAYS[trunk.way], trunk.way == "plain"
        device = input_device(self.backbone)

        def work(chosen: list[int]) -> Tensor:
            found = way(self, trunk, [branches[i] for i in chosen], device)
            if trunk.lead is None or self.pooling != "mean":
                return found
            own = torch.tensor([branches[i].span[1] - branches[i].span[0] for i in chosen], device=found.device)
            share = (own / (own + trunk.lead_length))[:, None, None]
            return share * found + (1 - share) * trunk.lead

        keys = [] if self.cache is None else [self.cache.key(trunk.ids, b.ids, b.span) for b in branches]
        lengths = [is_plain * trunk.length + len(branch.ids) for branch in branches]
        packed = trunk.way == "shared"
        batcher = self._batcher(trunk, batch_size)
        return run_batches(batcher, lengths, work, packed=packed, cache=self.cache, keys=keys, progress=progress)

    def _batcher(self, trunk: Trunk, batch_size: int | None = None) -> Batcher:
        """How branches of a trunk become batches."""
        batcher = Batcher.on(input_device(self.backbone), batch_size)
        if trunk.way == "shared":
            row = CPU_ROW if input_device(self.backbone).type == "cpu" else ACCELERATOR_ROW
            batcher.max_tokens = min(batcher.max_tokens, max(row, trunk.length // 4))
        elif trunk.way == "copied" and trunk.prefix is not None:
            size = sum(tensor.nbytes for layer in trunk.prefix.layers for tensor in layer)
            rows = max(1, COPIED_BYTES // size)
            batcher.max_rows = rows if batch_size is None else min(rows, batch_size)
        return batcher


def _shared(reader: Reader, trunk: Trunk, branches: Sequence[Branch], device: torch.device) -> Tensor:
    """One row of all branches, each of which sees the trunk and itself."""
    lengths = torch.tensor([len(branch.ids) for branch in branches])
    owner = torch.repeat_interleave(torch.arange(len(branches)), lengths)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(owner)) - first[owner]
    tokens = torch.tensor([[token for branch in branches for token in branch.ids]], device=device)
    positions = trunk.length + place
    own = (owner[:, None] == owner) & (place[:, None] >= place)
    visible = torch.cat([torch.ones(len(owner), trunk.length, dtype=torch.bool), own], dim=1)
    key_positions = torch.cat([torch.arange(trunk.length), positions])
    distance = positions[:, None] - key_positions
    inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": _masks(reader, visible, distance, device)}
    if accepts(reader.backbone, "position_ids"):
        inputs["position_ids"] = positions[None].to(device)
    if trunk.prefix is None:
        inputs.update(without_cache(reader.backbone))
    else:
        inputs.update(past_key_values=trunk.prefix.cache(), use_cache=True)
    with _linear_biases(reader.backbone, key_positions):
        _, hidden_states = run_backbone(reader.backbone, reader.layers, **inputs)
    spans = [(at + b.span[0], at + b.span[1]) for at, b in zip(first.tolist(), branches, strict=True)]
    return pool_spans(hidden_states, spans, reader.pooling)


def _masks(reader: Reader, visible: Tensor, distance: Tensor, device: torch.device) -> Any:
    """What is added to attention scores (1, 1, n, keys): one mask, or one for each type of layer."""
    config = reader.backbone.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    near = visible if window is None else visible & (distance < window)

    def added(chosen: Tensor) -> Tensor:
        mask = torch.zeros(chosen.shape, dtype=reader.backbone.dtype, device=device)
        return mask.masked_fill_(~chosen.to(device), torch.finfo(mask.dtype).min)[None, None]

    layer_types = getattr(config, "layer_types", None)
    if layer_types is None:
        return added(near)
    by_type = {"full_attention": visible, "sliding_attention": near}
    return {layer_type: added(by_type[layer_type]) for layer_type in set(layer_types)}


@contextmanager
def _linear_biases(backbone: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """Let a backbone whose attention is biased by distance (ALiBi) count the keys of a row at these positions."""
    original: Callable | None = getattr(backbone, "build_alibi_tensor", None)
    if original is None:
        yield
        return

    def build(mask: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        straight = torch.ones(1, int(positions.max()) + 1, dtype=torch.long, device=mask.device)
        return original(straight, *args, **kwargs)[..., positions.to(mask.device)]

    backbone.build_alibi_tensor = build  # type: ignore[assignment]
    try:
        yield
    finally:
        del backbone.build_alibi_tensor


def _copied(reader: Reader, trunk: Trunk, branches: Sequence[Branch], device: torch.device) -> Tensor:
    """A batch whose rows begin with a copy of the trunk's keys and values."""
    if trunk.prefix is None:
        return _plain(reader, trunk, branches, device)
    mask = pad_sequence([torch.ones(trunk.length + len(branch.ids)) for branch in branches], batch_first=True).long()
    inputs = {"past_key_values": trunk.prefix.cache(), "use_cache": True, "attention_mask": mask.to(device)}
    _, hidden_states = run_backbone(reader.backbone, reader.layers, input_ids=_rows(branches, device), **inputs)
    return _pool_each(hidden_states, [branch.span for branch in branches], reader.pooling)


def _plain(reader: Reader, trunk: Trunk, branches: Sequence[Branch], device: torch.device) -> Tensor:
    """A batch whose rows hold the whole prompt."""
    at = trunk.length
    whole = [Branch((*trunk.ids, *b.ids), (at + b.span[0], at + b.span[1])) for b in branches]
    mask = pad_sequence([torch.ones(len(branch.ids)) for branch in whole], batch_first=True).long()
    inputs = {"input_ids": _rows(whole, device), "attention_mask": mask.to(device), **without_cache(reader.backbone)}
    _, hidden_states = run_backbone(reader.backbone, reader.layers, **inputs)
    return _pool_each(hidden_states, [branch.span for branch in whole], reader.pooling)


def _rows(branches: Sequence[Branch], device: torch.device) -> Tensor:
    return pad_sequence([torch.tensor(branch.ids) for branch in branches], batch_first=True).to(device)


def _pool_each(hidden_states: Sequence[Tensor], spans: Sequence[tuple[int, int]], pooling: str) -> Tensor:
    """One span of each row."""
    rows = [pool_spans([hidden[i : i + 1] for hidden in hidden_states], [s], pooling) for i, s in enumerate(spans)]
    return torch.cat(rows)


WAYS: dict[str, Callable[[Reader, Trunk, Sequence[Branch], torch.device], Tensor]] = {
    "shared": _shared,
    "copied": _copied,
    "plain": _plain,
}


__all__ = ["Branch", "Reader", "Trunk"]
