"""Energy of recordings: the loudness of the input at each output of a backbone, by which frames are weighted."""

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from transformers_tart.embeddings.pooling import Energies, count_outputs


LONG = 10**6  # inputs; outputs of so many give the step between them
RANGE = 8.0  # decades of power that the features of a recording span
FLOOR = 1e-9  # so that silence has weights


def counts_frames(backbone: PreTrainedModel) -> bool:
    """Return whether a backbone computes the number of its outputs, each of which is then a frame of the input."""
    return bool(count_outputs(backbone, LONG))


def energies_of(backbone: PreTrainedModel, inputs: Tensor, mask: Tensor | None = None) -> Energies:
    """Map the length of a layer to the root of the power (n, length) of inputs at its outputs.

    Features of frames are logarithms of power in some unit: their range in a recording counts as 80 dB.

    Args:
        backbone (`PreTrainedModel`):
            The backbone, which computes the number of its outputs.
        inputs (`torch.FloatTensor` of shape `(n, samples)`, `(n, frames, bins)` or `(n, bins, frames)`):
            Samples, or log-mel features.
        mask (`torch.LongTensor` of shape `(n, frames)`, *optional*):
            Attention mask of the inputs; without one, frames outnumber bins.
    """
    power = inputs.float().square() if inputs.dim() == 2 else _power_of_features(inputs.float(), mask)

    def energies(length: int) -> Tensor:
        count = power.shape[1]
        # the backbone may count outputs of an adapter, before which hidden states are taken
        for options in ({}, {"add_adapter": False}):
            outputs = count_outputs(backbone, LONG, **options)
            if outputs and count_outputs(backbone, count, **options) == length:
                step = round(LONG / outputs)
                filled = pad(power, (0, max(0, step * length - count)))[:, : step * length]
                return filled.unflatten(1, (length, step)).mean(2).sqrt() + FLOOR
        raise ValueError(
            f"{type(backbone).__name__} gives {length} outputs for {count} inputs, which are not frames in order, as "
            'pooling="energy" needs them; take pooling="mean" or "max".'
        )

    return energies


def _power_of_features(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return the power (n, frames) of log-mel features, relative to the largest of each recording."""
    frames = max(features.shape[1:]) if mask is None else mask.shape[1]
    features = features if features.shape[1] == frames else features.transpose(1, 2)
    least, largest = features.amin((1, 2), keepdim=True), features.amax((1, 2), keepdim=True)
    decades = RANGE * (features - largest) / (largest - least).clamp(min=FLOOR)
    return torch.pow(10.0, decades).mean(2)
