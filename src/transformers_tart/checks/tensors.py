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


def _as_integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {shorten(value)} of type {type(value).__name__}; it must be an integer.")
    return int(value)


def check_seed(seed: Any) -> int:
    """Return a seed as a Python integer, which must fit into 64 bits."""
    seed = _as_integer("seed", seed)
    if seed not in SEEDS:
        raise ValueError(f"seed is {shorten(seed)}; it must fit into 64 bits.")
    return seed


def _kind_of(value: Any) -> Any:
    return value.dtype if isinstance(value, Tensor) else type(value).__name__


def check_tensor(name: str, tensor: Any) -> None:
    """Check that an argument is a dense tensor with values, and not on the device meta."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is {shorten(tensor)} of type {type(tensor).__name__}; it must be a torch.Tensor.")
    if tensor.layout != torch.strided or tensor.device.type == "meta":
        raise ValueError(
            f"{name} has layout {tensor.layout}, on the device {tensor.device}; it must be dense, on a device that "
            "holds values."
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in float64 where it is in that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_embeddings(embeddings: Any, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return embeddings in a dtype, whose values must be finite; these are not checked while tracing."""
    if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point():
        kind = _kind_of(embeddings)
        raise TypeError(
            f"The {name} are {kind}; they must be a torch.Tensor of floating-point numbers, or a list of such tensors "
            "with one for each view."
        )
    check_tensor(f"The tensor of {name}", embeddings)
    converted = embeddings.to(dtype)
    if not is_traced() and not torch.isfinite(converted).all():
        raise ValueError(
            f"The {name} hold NaN or infinite values: the backbone is broken or overflows its dtype. Load it with "
            "dtype=torch.float32 or torch.bfloat16."
        )
    return converted


def _name_views(what: str, count: int) -> list[str]:
    """Return the names of `what` in each view, for error messages."""
    return [f"{what} of view {i + 1} of {count}" for i in range(count)] if count > 1 else [what]


def check_views(embeddings: Any, what: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return the embeddings of each view in a dtype, from one tensor or a list or tuple of them."""
    views = embeddings if isinstance(embeddings, list | tuple) else [embeddings]
    if not views:
        raise ValueError(f"There are no {what}: the list is empty; give one tensor, or one for each view.")
    names = _name_views(what, len(views))
    return [check_embeddings(view, name, dtype) for view, name in zip(views, names, strict=True)]


def check_hints(hints: Any, unlabeled: Any, labels: Any, num_labels: Any) -> tuple[Tensor | None, Tensor | None, Any]:
    """Return hints of examples with labels, those of unlabeled inputs, both in float32, and the number of classes."""
    if hints is None:
        if unlabeled is not None:
            raise ValueError("unlabeled_hints are given without support_hints; give both, with shape (batch, 0, ...).")
        return None, None, num_labels
    hints = _check_hint_tensor(hints, "support hints")
    shape = tuple(labels.shape) if isinstance(labels, Tensor) else ()
    if hints.dim() != 4 or tuple(hints.shape[:2]) != shape or hints.shape[-1] < 2:
        raise ValueError(
            "The support hints must be (batch, k, num_hints, num_labels), of two classes or more, and the support "
            f"labels (batch, k); got {tuple(hints.shape)} and {shape}."
        )
    batch, _, count, classes = hints.shape
    if num_labels is not None and _as_integer("num_labels", num_labels) != classes:
        raise ValueError(f"The support hints have {classes} classes, num_labels is {num_labels}.")
    unlabeled = hints[:, :0] if unlabeled is None else _check_hint_tensor(unlabeled, "unlabeled hints")
    if unlabeled.dim() != 4 or (unlabeled.shape[0], *unlabeled.shape[2:]) != (batch, count, classes):
        raise ValueError(
            f"The unlabeled hints must be (batch, m, num_hints, num_labels), here ({batch}, m, {count}, {classes}); "
            f"got {tuple(unlabeled.shape)}."
        )
    return hints, unlabeled, classes


def check_query_hints(hints: Any, shape: Sequence[int]) -> Tensor | None:
    """Return hints (batch, n, num_hints, num_labels) of queries in float32, `None` where the support set has none."""
    if hints is None and shape[2] == 0:
        return None
    if hints is None:
        raise ValueError(f"The support set has {shape[2]} hints; give those of the queries: query_hints=...")
    hints = _check_hint_tensor(hints, "query hints")
    if tuple(hints.shape) != tuple(shape):
        raise ValueError(
            "The query hints must be (batch, n, num_hints, num_labels), with the hints and classes of the support "
            f"set, here {tuple(shape)}; got {tuple(hints.shape)}."
        )
    return hints


def _check_hint_tensor(hints: Any, name: str) -> Tensor:
    if not isinstance(hints, Tensor) or not hints.is_floating_point():
        raise TypeError(f"The {name} are {_kind_of(hints)}; they must be a torch.Tensor of floating-point numbers.")
    check_tensor(f"The tensor of {name}", hints)
    hints = at_least_float32(hints)
    if not is_traced() and hints.isinf().any():
        raise ValueError(f"The {name} hold infinite values; a class of which a hint says nothing has NaN.")
    return hints


def check_support(
    embeddings: Any, labels: Any, num_labels: Any, has_hints: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor, int]:
    """Return support embeddings of each view in a dtype, their labels in int64, and the number of classes."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"The support labels are {_kind_of(labels)}; they must be a torch.Tensor of integers.")
    check_tensor("The tensor of support labels", labels)
    views = check_views(embeddings, "support embeddings", dtype)
    names = _name_views("support embeddings", len(views))
    for view, name in zip(views, names, strict=True):
        if view.dim() != 3 or labels.shape != view.shape[:2] or view.shape[-1] == 0:
            raise ValueError(
                f"The {name} must be (batch, k, dim) and support labels (batch, k); got {tuple(view.shape)} and "
                f"{tuple(labels.shape)}."
            )
    if has_hints and is_integer(labels) and labels.shape[0] > 0 and labels.shape[1] == 0:
        return views, labels.long(), num_labels
    if not is_integer(labels) or labels.numel() == 0 or labels.min() < 0:
        raise ValueError(f"Support labels must be integers from 0, at least one of them; got {labels.dtype}.")
    largest = int(labels.max())
    num_labels = largest + 1 if num_labels is None else _as_integer("num_labels", num_labels)
    if largest >= num_labels:
        raise ValueError(f"A support label is {largest}, but there are {num_labels} classes, numbered from 0.")
    if num_labels > MAX_LABELS:
        raise ValueError(
            f"There are {num_labels} classes, and at most {MAX_LABELS} are read: number them from 0 without gaps."
        )
    if (labels == labels[:, :1]).all(dim=1).any():
        raise ValueError("All examples of the support set have one label; give examples of at least two classes.")
    for view, name in zip(views, names, strict=True):
        if (view == view[:, :1]).flatten(1).all(dim=1).any():
            remedy = "; leave this view out" if len(views) > 1 else ""
            raise ValueError(f"All {name} are equal, so nothing can be learned from them{remedy}.")
    return views, labels.long(), num_labels


def check_weights(weights: Any, labels: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return weights (batch, k) of examples in a dtype, `None` where none are given; they must be positive."""
    if weights is None:
        return None
    if not isinstance(weights, Tensor) or not (weights.is_floating_point() or is_integer(weights)):
        raise TypeError(f"The support weights are {_kind_of(weights)}; they must be a torch.Tensor of numbers.")
    check_tensor("The tensor of support weights", weights)
    if weights.shape != labels.shape:
        raise ValueError(f"The support weights are {tuple(weights.shape)}, the labels {tuple(labels.shape)}.")
    if not (torch.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError("The support weights must be positive and finite; leave examples of weight 0 out.")
    return weights.to(labels.device, dtype)


def check_queries(
    embeddings: Any, batch: int, dims: Sequence[int], dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Return query embeddings (batch, n, dim) of each view in a dtype, given the support set's batch and dims."""
    views = check_views(embeddings, "query embeddings", dtype)
    if len(views) != len(dims):
        raise ValueError(
            f"The number of views is {len(views)} in the queries and {len(dims)} in the support set: give the query "
            "embeddings of the same views, in the same order."
        )
    for view, name, dim in zip(views, _name_views("query embeddings", len(views)), dims, strict=True):
        if view.dim() != 3 or view.shape[0] != batch:
            raise ValueError(
                f"The {name} must be (batch, n, dim) with the support set's batch of {batch} and its {dim} "
                f"dimensions; got {tuple(view.shape)}."
            )
        if view.shape[-1] != dim:
            raise ValueError(
                f"The {name} have {view.shape[-1]} dimensions, the support set has {dim}: embed both alike."
            )
        if view.shape[1] != views[0].shape[1]:
            raise ValueError(
                f"The {name} are of {view.shape[1]} queries, those of the first view of {views[0].shape[1]}: embed "
                "the same queries in each view."
            )
    return views


def check_query_labels(labels: Any, shape: Sequence[int], num_labels: int, name: str = "query labels") -> Tensor:
    """Return labels of queries, classes or -100, in int64; `name` is their name in error messages."""
    if not isinstance(labels, Tensor) or not is_integer(labels):
        raise TypeError(f"The {name} are {_kind_of(labels)}; they must be a torch.Tensor of integers.")
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(f"The {name} must have the shape {tuple(shape)}; got {tuple(labels.shape)}.")
    is_class = (labels >= 0) & (labels < num_labels)
    if not is_traced() and not (is_class | (labels == IGNORED)).all():
        raise ValueError(f"The {name} must be classes from 0 to {num_labels - 1}, or {IGNORED} to leave a query out.")
    return labels.long()


def is_integer(tensor: Tensor) -> bool:
    """Return whether a tensor holds integers, and not booleans."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
