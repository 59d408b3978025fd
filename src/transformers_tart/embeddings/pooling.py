"""From tokens to embeddings: one forward pass of a backbone, and one vector of the hidden states of its tokens."""

import inspect
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from transformers_tart.configuration_tart import POOLINGS
from transformers_tart.prefix_cache import innermost
from transformers_tart.tokenization import backbone_max_length, pad_right
from transformers_tart.tracing import is_traced


_SWITCHING = threading.Lock()


def text_encoder(backbone: PreTrainedModel) -> PreTrainedModel:
    """The part of a backbone that reads text: the encoder of an encoder-decoder, else all of it."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


def accepts(backbone: PreTrainedModel, argument: str) -> bool:
    """Whether the forward pass of a backbone takes an argument of this name."""
    return argument in inspect.signature(innermost(backbone).forward).parameters


def without_cache(backbone: PreTrainedModel) -> dict[str, bool]:
    """What tells a backbone to keep nothing, where it takes that."""
    return {"use_cache": False} if accepts(backbone, "use_cache") else {}


def switch_length(backbone: PreTrainedModel) -> int | None:
    """The length from where on a backbone turns all positions of a forward pass otherwise than below it, if any.

    Such rotary embeddings (`longrope`, `dynamic`) let the longest row of a batch change the others.
    """
    parameters = getattr(backbone.config.get_text_config(), "rope_parameters", None) or {}
    if parameters.get("rope_type") not in ("longrope", "dynamic"):
        return None
    return parameters.get("original_max_position_embeddings") or backbone_max_length(backbone)


def are_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether hidden states (..., layers, hidden) differ by no more than rounding in every layer.

    Measured by medians: a few dimensions of many models are thousands of times as large as the others.
    """
    tolerance = 1e-3 if dtype in (torch.float32, torch.float64) else 5e-2
    gap = (found - expected).float().abs().median(-1).values
    return bool((gap <= tolerance * expected.float().abs().median(-1).values).all())


def input_device(backbone: PreTrainedModel) -> torch.device:
    """Where the token ids of a backbone belong; hooks of a device map move them on."""
    device = backbone.device
    return torch.device("cpu") if device.type == "meta" else device


def run_backbone(backbone: PreTrainedModel, layers: int | str, **inputs: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """A forward pass without gradients: the output, and the hidden states (n, length, hidden) of the layers asked.

    One thread at a time where a pass changes the backbone: rotary embeddings that switch with the length keep their
    frequencies in a buffer.
    """
    with torch.no_grad(), nullcontext() if switch_length(backbone) is None else _SWITCHING:
        if layers == -1:
            output = backbone(**inputs, return_dict=True)
            return output, (output.last_hidden_state,)
        output = backbone(**inputs, return_dict=True, output_hidden_states=True)
    hidden_states = output.hidden_states
    return output, hidden_states if layers == "all" else (choose_layer(hidden_states, layers),)


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
    Embed a batch of tokenised texts.

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


def normalised(embeddings: Tensor, wanted: bool = True) -> Tensor:
    """Embeddings (..., hidden) float32 divided by their Euclidean norms, zeros as they are; or all as they are."""
    return normalize(embeddings, dim=-1) if wanted else embeddings


def choose_layer(hidden_states: tuple[Tensor, ...], index: int | str) -> Tensor:
    """One of the hidden states by its index, from either end."""
    count = len(hidden_states)
    if not isinstance(index, int) or not -count <= index < count:
        raise ValueError(f'layers is {index!r}; the backbone has hidden states 0 to {count - 1}, or "all".')
    return hidden_states[index]


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


__all__ = [
    "accepts",
    "are_close",
    "choose_layer",
    "input_device",
    "normalised",
    "pool_rows",
    "pool_spans",
    "pooled_hidden_states",
    "run_backbone",
    "switch_length",
    "text_encoder",
    "without_cache",
]
