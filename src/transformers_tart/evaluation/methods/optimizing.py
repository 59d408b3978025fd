"""A plain training loop: AdamW, a linear warm-up and decay, clipped gradients."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import is_initialized
from accelerate.utils import is_bf16_available
from torch import Tensor, nn
from transformers import get_scheduler


BATCH_SIZE, EPOCHS, MIN_STEPS = 16, 10, 40
WARMUP = 0.1  # of the steps
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0

# The loss of a batch, given the indices of its examples, in terms that are added up: one for each forward pass.
Losses = Callable[[list[int]], Iterable[Tensor]]


def make_accelerator(device: torch.device) -> Accelerator:
    """Mixed precision on accelerators that have it; what accelerate is configured for already is left as it is."""
    is_open = device.type != "cpu" and not is_initialized() and is_bf16_available(ignore_tpu=True)
    return Accelerator(mixed_precision="bf16" if is_open else None)


def group_parameters(module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """What of a module is trained, for the optimizer; biases and norms, which have one dimension, do not decay."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices, vectors = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    groups = (matrices, WEIGHT_DECAY), (vectors, 0.0)
    return [{"params": part, "lr": learning_rate, "weight_decay": decay} for part, decay in groups if part]


def draw_batches(count: int, seed: int) -> list[list[int]]:
    """Indices of the examples of every step: as many epochs as asked, and more of few examples."""
    generator, batches = torch.Generator().manual_seed(seed), list[list[int]]()
    steps = max(MIN_STEPS, EPOCHS * math.ceil(count / BATCH_SIZE))
    while len(batches) < steps:
        batches += [part.tolist() for part in torch.randperm(count, generator=generator).split(BATCH_SIZE)]
    return batches[:steps]


def optimize(groups: list[dict[str, Any]], losses: Losses, batches: list[list[int]], accelerator: Accelerator) -> None:
    r"""
    Minimize a loss.

    Args:
        groups (`list[dict]`):
            As [`group_parameters`] gives them.
        losses (`Callable`):
            From the indices of a batch to the terms of its loss.
        batches (`list[list[int]]`):
            A batch for each step.
        accelerator (`Accelerator`):
            Takes the gradients. Nothing is prepared with it: each process of a launch trains on its own.

    Raises:
        FloatingPointError: When the loss is not finite.
    """
    optimizer = torch.optim.AdamW(groups)
    scheduler = get_scheduler("linear", optimizer, math.ceil(WARMUP * len(batches)), len(batches))
    parameters = [parameter for group in groups for parameter in group["params"]]
    for step, chosen in enumerate(batches, start=1):
        loss = 0.0
        for term in losses(chosen):
            accelerator.backward(term)
            loss += term.item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} at step {step} of {len(batches)}: fine-tune with a lower learning_rate, or leave "
                "fine-tuning out for this backbone."
            )
        accelerator.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


__all__ = ["draw_batches", "group_parameters", "make_accelerator", "optimize"]
