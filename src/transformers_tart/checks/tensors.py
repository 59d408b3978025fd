"""Checks of tensors, seeds and class counts that a reasoner takes."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.tracing import is_traced


MAX_LABELS = 2**16  # larger labels are ids, and as many classes would fill the memory
IGNORED = -100  # the label that PyTorch's cross-entropy ignores
SEEDS = range(-(2**63), 2**64)


def check_seed(seed: Any) -> int:
    """Return a seed as a Python integer, which must fit into 64 bits."""
    seed = _as_integer("seed", seed)
    if seed not in SEEDS:
        raise ValueError(f"seed is {shorten(seed)}; it must fit into 64 bits.")
    return seed


def _as_integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {shorten(value)} of type {type(value).__name__}; it must be an integer.")
    return int(value)


def check_tensor(name: str, tensor: Any) -> None:
    """Check that an argument is a dense tensor with values, and not on the device meta."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is {shorten(tensor)} of type {type(tensor).__name__}; it must be a torch.Tensor.")
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise ValueError(
            f"{name} has layout {tensor.layout}, on the device {tensor.device}; it must be dense, on a device that "
            "holds values."
        )


def check_embeddings(embeddings: Any, what: str) -> Tensor:
    """Return embeddings in float32, whose values must be finite; these are not checked while tracing."""
    if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point():
        found = embeddings.dtype if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise TypeError(f"The {what} embeddings are {found}; they must be a torch.Tensor of floating-point numbers.")
    check_tensor(f"The tensor of {what} embeddings", embeddings)
    converted = embeddings.float()
    if not is_traced() and not torch.isfinite(converted).all():
        raise ValueError(
            f"The {what} embeddings hold NaN or infinite values: the backbone is broken or overflows its dtype. Load "
            "it with dtype=torch.float32 or torch.bfloat16."
        )
    return converted


def check_support(embeddings: Any, labels: Any, num_labels: Any) -> tuple[Tensor, Tensor, int]:
    """Return support embeddings in float32, their labels in int64, and the number of classes."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"The support labels are {type(labels).__name__}; they must be a torch.Tensor of integers.")
    check_tensor("The tensor of support labels", labels)
    converted = check_embeddings(embeddings, "support")
    if converted.dim() != 3 or labels.shape != converted.shape[:2] or converted.shape[-1] == 0:
        raise ValueError(
            "Support embeddings must be (batch, k, dim) and support labels (batch, k); got "
            f"{tuple(converted.shape)} and {tuple(labels.shape)}."
        )
    if not is_integer(labels) or labels.numel() == 0 or labels.min() < 0:
        raise ValueError(f"Support labels must be integers from 0, at least one of them; got {labels.dtype}.")
    num_labels = _check_num_labels(num_labels, int(labels.max()))
    if (labels == labels[:, :1]).all(dim=1).any():
        raise ValueError("All examples of the support set have one label; give examples of at least two classes.")
    if (converted == converted[:, :1]).flatten(1).all(dim=1).any():
        raise ValueError("All support embeddings are equal, so nothing can be learned from them.")
    return converted, labels.long(), num_labels


def _check_num_labels(num_labels: Any, largest: int) -> int:
    num_labels = largest + 1 if num_labels is None else _as_integer("num_labels", num_labels)
    if largest >= num_labels:
        raise ValueError(f"A support label is {largest}, but there are {num_labels} classes, numbered from 0.")
    if num_labels > MAX_LABELS:
        raise ValueError(
            f"There are {num_labels} classes, and at most {MAX_LABELS} are read: number the classes from 0 without "
            "gaps."
        )
    return num_labels


def check_queries(embeddings: Any, batch: int, dim: int) -> Tensor:
    """Return query embeddings (batch, n, dim) in float32, given the batch and dim of the support embeddings."""
    converted = check_embeddings(embeddings, "query")
    if converted.dim() != 3 or converted.shape[0] != batch:
        raise ValueError(
            f"Query embeddings must be (batch, n, dim) with the support set's batch of {batch} and its {dim} "
            f"dimensions; got {tuple(converted.shape)}."
        )
    if converted.shape[-1] != dim:
        raise ValueError(
            f"The queries have {converted.shape[-1]} dimensions, the support set has {dim}: embed both in the same "
            "way."
        )
    return converted


def check_query_labels(labels: Any, shape: Sequence[int], num_labels: int, name: str = "query labels") -> Tensor:
    """Return labels of queries, classes or -100, in int64; `name` is their name in error messages."""
    if not isinstance(labels, Tensor) or not is_integer(labels):
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"The {name} are {found}; they must be a torch.Tensor of integers.")
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(f"The {name} must have the shape {tuple(shape)}; got {tuple(labels.shape)}.")
    is_class = (labels >= 0) & (labels < num_labels)
    if not is_traced() and not (is_class | (labels == IGNORED)).all():
        raise ValueError(f"The {name} must be classes from 0 to {num_labels - 1}, or {IGNORED} to leave a query out.")
    return labels.long()


def is_integer(tensor: Tensor) -> bool:
    """Return whether a tensor holds integers, and not booleans."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


__all__ = [
    "check_embeddings",
    "check_queries",
    "check_query_labels",
    "check_seed",
    "check_support",
    "check_tensor",
    "is_integer",
]
