"""Detection of forward passes that are traced."""

import torch


def is_traced() -> bool:
    """Return whether the forward pass is being exported, so no branch may depend on the data.

    `torch.compile` is different: it leaves branches to Python.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
