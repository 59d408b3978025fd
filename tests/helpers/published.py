"""Checkpoints in the layout of the published TART code."""

import torch

from transformers_tart import TartReasoner
from transformers_tart.conversion import _reasoner_config


SIZES = {"n_dims": 4, "n_positions": 6, "n_embd": 8, "n_head": 2, "n_layer": 1, "n_y": 1}


def published_state(sizes: dict[str, int] = SIZES, **extra: torch.Tensor) -> dict[str, torch.Tensor]:
    """A state dict in the published layout with random weights."""
    torch.manual_seed(0)
    reasoner = TartReasoner(_reasoner_config(sizes))
    names = {"read_in": "_read_in", "backbone": "_backbone", "read_out": "_read_out"}
    state = {}
    for name, tensor in reasoner.architecture.state_dict().items():
        head, rest = name.split(".", 1)
        state[f"{names[head]}.{rest}"] = tensor.clone()
    state["_backbone.wte.weight"] = torch.zeros(50, sizes["n_embd"])
    return {**state, **extra}
