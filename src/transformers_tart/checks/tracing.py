"""Whether a forward pass is recorded into a program of its own."""

import torch


def is_traced() -> bool:
    """Return whether the forward pass is being exported, when no branch may depend on the data.

    `torch.compile` is no such case: it leaves branches to Python.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


__all__ = ["is_traced"]
