"""From tokens to embeddings: one forward pass of a backbone, and one vector of the hidden states of its tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.profiler import record_function
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


@record_function("tart/pooling")
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


__all__ = ["normalized", "pool_rows", "pool_spans", "pooled_hidden_states"]
