"""Properties of a backbone that only a trial shows."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import reads_forward


class ProbeResult(NamedTuple):
    """A strategy of prefix sharing, and the length of the longest prefix with which it was tried."""

    strategy: str = "off"
    length: int = 0


class PaddingStates(NamedTuple):
    """Input of the first layer for a window of one repeated frame."""

    frame: bytes
    states: Tensor  # (length, hidden)
    is_added: Tensor  # (length,): places that the backbone adds to every input


@dataclass(eq=False)
class BackboneTraits:
    """A frozen backbone, and the results of probing it.

    Keep the object as long as the backbone: each property is probed once. Threads may share it; at worst two of them
    run the same probe.
    """

    backbone: PreTrainedModel
    prefix_sharing: dict[tuple[object, ...], ProbeResult] = field(default_factory=dict)  # by `runtime`
    is_padding_safe: bool | None = None  # padded audio has the embedding of the same audio without padding
    padding: PaddingStates | None = None  # of the last kind of padding

    @cached_property
    def is_causal(self) -> bool:
        """`True` where no token changes the hidden states before it."""
        return reads_forward(self.backbone)

    @property
    def runtime(self) -> tuple[torch.dtype, torch.device, str | None]:
        """The dtype, device and attention implementation, which may change while the backbone lives."""
        backbone = self.backbone
        return backbone.dtype, backbone.device, backbone.config._attn_implementation
