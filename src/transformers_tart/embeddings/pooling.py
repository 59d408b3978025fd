"""Pooling: the hidden states of a text, image or recording to one vector a layer, without padding.

Some feature extractors mark padding by a mask. Others fill up to a fixed length with equal frames, without a mask.
Then an output counts as padding if the input of the first layer at its place is the same as for a window of such
frames alone. Tokens that the backbone itself adds to every input are no padding.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad
from torch.profiler import record_function
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import run_backbone, run_views, text_encoder, without_cache
from transformers_tart.backbones.sentence_head import apply_head
from transformers_tart.backbones.traits import BackboneTraits, PaddingStates
from transformers_tart.checks.tracing import is_traced
from transformers_tart.embeddings.arguments import check_options
from transformers_tart.inputs.tokenization import pad_right
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.kv_cache import accepts


# From the length of a layer to a mask (n, length) of its outputs that are not padding.
FrameMask: TypeAlias = Callable[[int], Tensor]
# From the length of a layer to the energy (n, length) of the input at each of its outputs.
Energies: TypeAlias = Callable[[int], Tensor]

MAX_ADDED = 8  # tokens that a backbone adds to the patches of an image
EQUAL = 1e-5  # relative to the largest value: states that differ by less differ by rounding alone


def pooled_hidden_states(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    *,
    pooling: str = "mean",
    layers: int | slice | str = -1,
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
        pooling (`str`, *optional*, defaults to `"mean"`), layers (`int` or `str`, *optional*, defaults to -1):
            As in [`View`].

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`: float32, one layer for an index.
    """
    options = check_options(pooling=pooling, layers=layers)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if not is_traced() and not mask.any(dim=1).all():
        raise ValueError("A row of the batch has no token: its attention mask is all zero.")
    batch = {"input_ids": input_ids, "attention_mask": mask}
    if token_type_ids is not None:
        batch["token_type_ids"] = token_type_ids
    return pool_rows(backbone, pad_right(batch), options.views)


@record_function("tart/pooling")
def pool_rows(backbone: PreTrainedModel, batch: dict[str, Tensor], views: Sequence[View]) -> Tensor:
    """Embed a batch that is padded on the right, without an empty row, by views without a template."""
    encoder = text_encoder(backbone)
    if not accepts(encoder, "token_type_ids"):
        batch = {name: tensor for name, tensor in batch.items() if name != "token_type_ids"}
    states, mask = run_views(encoder, views, **batch, **without_cache(encoder)), batch["attention_mask"]
    return stack_layers(
        [
            apply_head(backbone, view.head, pool_tokens(hidden, mask.to(hidden.device), view.pooling, view.skip))
            for view, layers in zip(views, states, strict=True)
            for hidden in layers
        ]
    )


@record_function("tart/pooling")
def pool_spans(
    states: Sequence[Sequence[Tensor]], views: Sequence[View], spans: Sequence[Sequence[tuple[int, int]]]
) -> Tensor:
    """Embed parts of a row, or of rows one after another, by views: (s, layers of all views, hidden) float32.

    Args:
        states (`list`):
            Of each view the hidden states (rows, length, hidden) of its layers.
        views (`list[View]`), spans (`list`):
            The views, and of each part its span (begin, end) in the row, one for all views or one for each.
    """
    pooled = []
    for number, (view, layers) in enumerate(zip(views, states, strict=True)):
        own = [part[number if len(part) > 1 else 0] for part in spans]
        pooled += [_pool_spans(hidden.flatten(0, 1), own, view.pooling) for hidden in layers]
    return stack_layers(pooled)


def stack_layers(layers: Sequence[Tensor]) -> Tensor:
    """Stack (n, hidden) of each layer to (n, layers, hidden) on the device of the last, narrow ones filled with 0."""
    width = max(layer.shape[-1] for layer in layers)  # layers of a pyramid have several
    return torch.stack([pad(layer.to(layers[-1].device), (0, width - layer.shape[-1])) for layer in layers], dim=1)


def pool_tokens(hidden: Tensor, mask: Tensor, pooling: str, skip: int = 0, energies: Tensor | None = None) -> Tensor:
    """Pool (n, length, hidden) to (n, hidden) float32, over the tokens of a mask; places need a right-padded one."""
    if "+" in pooling:
        return torch.cat([pool_tokens(hidden, mask, each, skip) for each in pooling.split("+")], dim=-1)
    place, last = torch.arange(hidden.shape[1], device=hidden.device), mask.sum(1) - 1
    if pooling in ("first", "second", "last"):
        chosen = {"first": last.clamp(max=skip), "second": last.clamp(max=skip + 1), "last": last}[pooling]
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), chosen].float()
    if pooling == "early_mean":  # the first token is special in most encoders
        skip = max(skip, 1)
        place = place - last.clamp(max=skip)[:, None]
        mask = mask * (place >= 0)
    elif skip:  # at least the last token is left
        mask = mask * (place >= last.clamp(max=skip)[:, None])
    # rows of the padding may hold anything, NaN included
    padding = mask[..., None] == 0
    if pooling == "max":
        return hidden.float().masked_fill(padding, -torch.inf).amax(1)
    weights = _mean_weights(mask, place, pooling)
    weights = weights if energies is None else weights * energies / (weights * energies).sum(1, keepdim=True)
    return torch.einsum("nl,nlh->nh", weights, hidden.float().masked_fill(padding, 0.0))


def _mean_weights(mask: Tensor, place: Tensor, pooling: str) -> Tensor:
    """Return the weights (n, length) of tokens in a mean, from a mask (n, length) and their places in the text."""
    weights = mask.float()
    if pooling == "weightedmean":
        weights = weights * (place + 1)
    if pooling == "early_mean":
        weights = weights / (place + 1).clamp(min=1)  # places before the text have none
    total = weights.sum(1, keepdim=True)
    return weights / (total.sqrt() if pooling == "mean_sqrt_len_tokens" else total)


def _pool_spans(hidden: Tensor, spans: Sequence[tuple[int, int]], pooling: str) -> Tensor:
    """Pool (length, hidden) to (s, hidden) float32."""
    if "+" in pooling:
        return torch.cat([_pool_spans(hidden, spans, each) for each in pooling.split("+")], dim=-1)
    if pooling == "max":
        return torch.stack([hidden[begin:end].float().amax(0) for begin, end in spans])
    bounds = torch.tensor(spans)
    begin, end = bounds[:, :1], bounds[:, 1:]
    places = {"first": begin, "second": torch.minimum(begin + 1, end - 1), "last": end - 1}
    if pooling in places:
        return hidden[places[pooling][:, 0].to(hidden.device)].float()
    place = torch.arange(len(hidden))
    weights = _mean_weights((place >= begin) & (place < end), place - begin, pooling)
    return weights.to(hidden.device) @ hidden.float()


def pool_map(
    hidden: Tensor,
    pooling: str,
    frame_mask: FrameMask | None = None,
    size: int | None = None,
    energies: Energies | None = None,
) -> Tensor:
    """Pool (n, length, hidden), or a map (n, height, width, hidden) or (n, hidden, height, width), to (n, hidden)."""
    if hidden.dim() == 4:
        if pooling == "first":
            raise ValueError('The backbone gives maps of features, of which none is the first: pooling="mean".')
        # `size` is the hidden size of the backbone
        is_last = hidden.shape[3] == size != hidden.shape[1]
        hidden = hidden.flatten(1, 2) if is_last else hidden.flatten(2).transpose(1, 2)
    length = hidden.shape[1]
    mask = torch.ones(hidden.shape[:2], dtype=torch.long) if frame_mask is None else frame_mask(length)
    weights = None if energies is None or pooling != "energy" else energies(length).to(hidden.device)
    return pool_tokens(hidden, mask.to(hidden.device), pooling, energies=weights)


def pool_quarters(hidden: Tensor, image: Tensor, size: int | None = None) -> tuple[Tensor, ...]:
    """Pool the quarters of a map, or of patches (n, length, hidden) of square images, to (n, hidden) float32 each."""
    if hidden.dim() == 3:
        side = math.isqrt(hidden.shape[1])
        added = hidden.shape[1] - side**2  # class and register tokens, before the patches
        if image.dim() != 4 or image.shape[2] != image.shape[3] or added > MAX_ADDED:
            raise ValueError(
                f"The backbone gives {hidden.shape[1]} outputs for an input of shape {tuple(image.shape[1:])}, which "
                'are no square of patches, as pooling="grid" needs it; take pooling="mean" or "max".'
            )
        hidden = hidden[:, added:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    elif hidden.shape[3] == size != hidden.shape[1]:
        hidden = hidden.permute(0, 3, 1, 2)
    return adaptive_avg_pool2d(hidden.float(), 2).flatten(2).unbind(2)


def frame_mask_of(backbone: PreTrainedModel, mask: Tensor, inputs: Tensor) -> FrameMask:
    """Map the attention mask (n, length) of inputs to outputs, at least one of each row."""
    given, length_before = mask.sum(1), mask.shape[1]
    # otherwise the mask counts samples, and the backbone frames
    is_of_inputs = length_before in inputs.shape[1:]

    def frame_mask(length: int) -> Tensor:
        counts = -(-given * length // length_before)
        # the backbone may count outputs of an adapter, before which hidden states are taken
        for options in ({}, {"add_adapter": False}):
            if is_of_inputs and count_outputs(backbone, length_before, **options) == length:
                found = [count_outputs(backbone, number, **options) for number in given.tolist()]
                counts = torch.tensor(found, device=mask.device)
                break
        return torch.arange(length, device=mask.device) < counts.clamp(1, length)[:, None]

    return frame_mask


def count_outputs(backbone: PreTrainedModel, inputs: int, **options: bool) -> int | None:
    """Return the number of outputs for so many inputs, `None` for backbones that do not compute it."""
    to_outputs: Callable | None = getattr(backbone, "_get_feat_extract_output_lengths", None)
    try:
        return None if to_outputs is None else int(to_outputs(torch.tensor(inputs), **options))
    except TypeError:
        return None


def infer_frame_mask(traits: BackboneTraits, inputs: Tensor, states: Tensor) -> FrameMask:
    """Infer the outputs that are not padding from inputs (n, frames, bins) and the input of the first layer."""
    counts = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    for i in _ends_in_equal_frames(inputs).nonzero()[:, 0].tolist():
        padding = _padding_states(traits, inputs[i])
        own = (states[i] - padding.states).float().abs().amax(-1) > EQUAL * states[i].float().abs().amax()
        counts[i] = own | padding.is_added if own.any() else True

    def frame_mask(length: int) -> Tensor:
        return counts if length == counts.shape[1] else torch.ones(len(counts), length, dtype=torch.bool)

    return frame_mask


def has_padding(inputs: Tensor) -> bool:
    """Return whether some row of frames (n, frames, bins) ends in equal ones; frames outnumber bins."""
    return inputs.dim() == 3 and inputs.shape[1] > inputs.shape[2] and bool(_ends_in_equal_frames(inputs).any())


def _ends_in_equal_frames(inputs: Tensor) -> Tensor:
    return (inputs[:, -1] == inputs[:, -2]).flatten(1).all(1)


def _padding_states(traits: BackboneTraits, row: Tensor) -> PaddingStates:
    """Return the states for nothing but the last frame of a row (frames, bins)."""
    frame, found = row[-1].float().cpu().numpy().tobytes(), traits.padding
    if found is None or found.frame != frame:  # extractors fill with one value; others are not worth keeping
        name = traits.backbone.main_input_name
        alone, other = (
            run_backbone(traits.backbone, True, **{name: last.expand_as(row)[None]}).hidden_states[0][0]
            for last in (row[-1], row[-1] + 1)
        )
        traits.padding = found = PaddingStates(frame, alone, (alone == other).all(-1))
    return found
