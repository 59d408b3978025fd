"""From tokens to embeddings: one forward pass of a backbone, and one vector of the hidden states of its tokens."""

from collections.abc import Callable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import accepts, run_backbone, text_encoder, without_cache
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import POOLINGS
from transformers_tart.inputs.tokenization import pad_right


def pooled_hidden_states(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    *,
    pooling: str = "mean",
    layers: int | str = -1,
) -> Tensor:
    r"""
    Embed a batch of tokenized texts.

    Args:
        backbone (`PreTrainedModel`):
            Any text model without a head.
        input_ids (`torch.LongTensor` of shape `(n, length)`):
            Token ids, padded on either side.
        attention_mask (`torch.LongTensor` of shape `(n, length)`, *optional*):
            1 for tokens, 0 for padding; all ones when not given.
        token_type_ids (`torch.LongTensor` of shape `(n, length)`, *optional*):
            Segments of text pairs, left out for backbones that take none.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"last"`, `"first"` or `"max"`, over the tokens of each text.
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the hidden states, or `"all"`.

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`: float32, one layer for an index.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if not is_traced() and not mask.any(dim=1).all():
        raise ValueError("A row of the batch has no token: its attention mask is all zero.")
    batch = {"input_ids": input_ids, "attention_mask": mask}
    if token_type_ids is not None:
        batch["token_type_ids"] = token_type_ids
    return pool_rows(backbone, pad_right(batch), pooling=pooling, layers=layers)


def pool_rows(backbone: PreTrainedModel, batch: dict[str, Tensor], *, pooling: str, layers: int | str) -> Tensor:
    """[`pooled_hidden_states`] of a batch that is padded on the right, without an empty row."""
    encoder = text_encoder(backbone)
    if not accepts(encoder, "token_type_ids"):
        batch = {name: tensor for name, tensor in batch.items() if name != "token_type_ids"}
    _, hidden_states = run_backbone(encoder, layers, **batch, **without_cache(encoder))
    pooled = [_pool(hidden, batch["attention_mask"].to(hidden.device), pooling) for hidden in hidden_states]
    return torch.stack([p.to(pooled[-1].device) for p in pooled], dim=1)


def pool_spans(hidden_states: Sequence[Tensor], spans: Sequence[tuple[int, int]], pooling: str) -> Tensor:
    """Embeddings (s, layers, hidden) float32 of spans (begin, end) of one row, (1, length, hidden) a layer."""
    pooled = [_pool_spans(hidden[0], spans, pooling) for hidden in hidden_states]
    return torch.stack([p.to(pooled[-1].device) for p in pooled], dim=1)


def normalized(embeddings: Tensor, wanted: bool = True) -> Tensor:
    """Embeddings (..., hidden) float32 divided by their Euclidean norms, zeros as they are; or all as they are."""
    return normalize(embeddings, dim=-1) if wanted else embeddings


def _pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, length, hidden) -> (n, hidden) float32, over the tokens of a right-padded mask."""
    _check_pooling(pooling)
    if pooling == "first":
        return hidden[:, 0].float()
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1].float()
    # rows of the padding may hold anything, NaN included
    padding = mask[..., None] == 0
    if pooling == "max":
        return hidden.float().masked_fill(padding, -torch.inf).amax(1)
    weights = mask.float() / mask.sum(1, keepdim=True)
    return torch.einsum("nl,nlh->nh", weights, hidden.float().masked_fill(padding, 0.0))


def _pool_spans(hidden: Tensor, spans: Sequence[tuple[int, int]], pooling: str) -> Tensor:
    """(length, hidden) -> (s, hidden) float32."""
    _check_pooling(pooling)
    if pooling == "max":
        return torch.stack([hidden[begin:end].float().amax(0) for begin, end in spans])
    bounds = torch.tensor(spans)
    begin, end = bounds[:, :1], bounds[:, 1:]
    if pooling != "mean":
        return hidden[(begin if pooling == "first" else end - 1)[:, 0].to(hidden.device)].float()
    place = torch.arange(len(hidden))
    chosen = (place >= begin) & (place < end)
    weights = chosen.float() / chosen.sum(1, keepdim=True)
    return weights.to(hidden.device) @ hidden.float()


def _check_pooling(pooling: str) -> None:
    if pooling not in POOLINGS:
        raise ValueError(f'pooling is "{pooling}"; it must be one of {POOLINGS}.')


# From a number of outputs to which of them (n, outputs) are of sound.
FrameMask: TypeAlias = Callable[[int], Tensor]

EQUAL = 1e-5  # relative to the largest value: states that differ by less are the same but for rounding

_PADDING: WeakKeyDictionary[PreTrainedModel, dict[bytes, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def pool_map(hidden: Tensor, pooling: str, heard: FrameMask | None = None, size: int | None = None) -> Tensor:
    r"""
    Embeddings (n, hidden) float32 of hidden states.

    Args:
        hidden (`Tensor` of shape `(n, length, hidden)`, `(n, hidden, height, width)` or `(n, height, width, hidden)`):
            Of one layer.
        pooling (`str`):
            `"mean"` or `"first"`.
        heard (`Callable`, *optional*):
            Which outputs count; all when not given.
        size (`int`, *optional*):
            The hidden size of the backbone, by which a map with the hidden axis last is known.

    Raises:
        ValueError: For `"first"` of a map.
    """
    if hidden.dim() == 4:
        if pooling == "first":
            raise ValueError('The backbone gives maps of features, of which none is the first: pooling="mean".')
        is_last = hidden.shape[3] == size != hidden.shape[1]
        hidden = hidden.flatten(1, 2) if is_last else hidden.flatten(2).transpose(1, 2)
    if pooling == "first":
        return hidden[:, 0].float()
    if heard is None:
        return hidden.float().mean(1)
    counts = heard(hidden.shape[1]).to(hidden.device)
    # rows of the padding may hold anything, NaN included
    return hidden.float().masked_fill(~counts[..., None], 0.0).sum(1) / counts.sum(1, keepdim=True)


def mask_of_outputs(backbone: PreTrainedModel, mask: Tensor, inputs: Tensor) -> FrameMask:
    """Outputs of the inputs that a mask (n, length) counts, at least one of each row."""
    to_outputs: Callable | None = getattr(backbone, "_get_feat_extract_output_lengths", None)
    if mask.shape[1] not in inputs.shape[1:]:
        to_outputs = None  # the mask counts samples, and the backbone frames
    given = mask.sum(1)

    def heard(length: int) -> Tensor:
        counts = -(-given * length // mask.shape[1])
        # it may count what an adapter makes of the outputs, which hidden states are before
        for options in ({}, {"add_adapter": False}):
            if to_outputs is not None and count_outputs(to_outputs, mask.shape[1], **options) == length:
                found = [count_outputs(to_outputs, number, **options) for number in given.tolist()]
                counts = torch.tensor(found, device=mask.device)
                break
        return torch.arange(length, device=mask.device) < counts.clamp(1, length)[:, None]

    return heard


def count_outputs(to_outputs: Callable, inputs: int, **options: bool) -> int | None:
    """How many outputs a backbone's method says it makes; of some the method takes or gives something else."""
    try:
        return int(to_outputs(torch.tensor(inputs), **options))
    except TypeError:
        return None


def infer_frame_mask(backbone: PreTrainedModel, name: str, inputs: Tensor, states: Tensor) -> FrameMask:
    r"""
    Which outputs are not of padding, of inputs that end in equal frames.

    Args:
        backbone (`PreTrainedModel`):
            The frozen model.
        name (`str`):
            What it calls its inputs.
        inputs (`Tensor` of shape `(n, frames, bins)`):
            What it was given.
        states (`Tensor` of shape `(n, length, hidden)`):
            What went into its first layer.
    """
    counts = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    for i in _padded(inputs).nonzero()[:, 0].tolist():
        padding, is_added = _padding_states(backbone, name, inputs[i])
        own = (states[i] - padding).float().abs().amax(-1) > EQUAL * states[i].float().abs().amax()
        counts[i] = own | is_added if own.any() else True

    def heard(length: int) -> Tensor:
        return counts if length == counts.shape[1] else torch.ones(len(counts), length, dtype=torch.bool)

    return heard


def has_padding(inputs: Tensor) -> bool:
    """Whether some row of frames (n, frames, bins) ends in equal ones; frames outnumber bins."""
    return inputs.dim() == 3 and inputs.shape[1] > inputs.shape[2] and bool(_padded(inputs).any())


def _padded(inputs: Tensor) -> Tensor:
    return (inputs[:, -1] == inputs[:, -2]).flatten(1).all(1)


def _padding_states(backbone: PreTrainedModel, name: str, row: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the first layer (length, hidden) for nothing but the last frame of a row (frames, bins), and
    which of it the backbone adds to every input, whatever it holds."""
    known = _PADDING.setdefault(backbone, {})
    key = row[-1].float().cpu().numpy().tobytes()
    found = known.get(key)
    if found is None:
        known.clear()  # extractors fill with one value; others are not worth keeping
        alone, other = (
            run_backbone(backbone, 0, **{name: frame.expand_as(row)[None]})[1][0][0]
            for frame in (row[-1], row[-1] + 1)
        )
        found = known[key] = alone, (alone == other).all(-1)
    return found  # another thread may have cleared what is known


__all__ = [
    "FrameMask",
    "count_outputs",
    "has_padding",
    "infer_frame_mask",
    "mask_of_outputs",
    "normalized",
    "pool_map",
    "pool_rows",
    "pool_spans",
    "pooled_hidden_states",
]
