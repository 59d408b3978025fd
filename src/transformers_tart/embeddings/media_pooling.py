"""From the hidden states of an image or of a recording to its embedding, without what is padding.

A feature extractor says by a mask which of its frames are sound, or fills up to a fixed length with equal frames and
says nothing. Then an output counts as padding if what goes into the first layer at its place is what an input of such
frames alone puts there; what the backbone itself adds to every input does not.
"""

from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import run_backbone


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


__all__ = ["FrameMask", "count_outputs", "has_padding", "infer_frame_mask", "mask_of_outputs", "pool_map"]
