"""Checks of the inputs of composed models' forward passes; a traced pass checks only types and shapes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import input_device
from transformers_tart.checks.tensors import check_query_labels, check_tensor, is_integer
from transformers_tart.checks.tracing import is_traced
from transformers_tart.reasoners.kv_cache import accepts


def check_tokens(backbone: PreTrainedModel, ids: Any, mask: Any, types: Any) -> dict[str, Tensor]:
    """Return a batch of token ids on the device of the backbone, with an integer mask.

    Args:
        backbone (`PreTrainedModel`):
            The backbone.
        ids, mask, types (`torch.Tensor` of shape `(batch, length)`, the last two *optional*):
            `input_ids`, `attention_mask` and `token_type_ids`.

    Raises:
        TypeError: On anything but tensors of integers; a mask may hold booleans or floats.
        ValueError: On other shapes, ids beyond the vocabulary, types beyond those of the backbone, and masks of values
            other than 0 and 1.
    """
    check_tensor("input_ids", ids)
    if not is_integer(ids):
        raise TypeError(f"input_ids are {ids.dtype}; they must be integers.")
    if ids.dim() != 2 or 0 in ids.shape:
        raise ValueError(f"input_ids have the shape {tuple(ids.shape)}; give (batch, length), at least one token.")
    mask = torch.ones_like(ids) if mask is None else mask
    batch = {"input_ids": ids, "attention_mask": mask, **({} if types is None else {"token_type_ids": types})}
    for name, tensor in batch.items():
        check_tensor(name, tensor)
        if tensor.shape != ids.shape:
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, but input_ids {tuple(ids.shape)}.")
    if types is not None and not is_integer(types):
        raise TypeError(f"token_type_ids are {types.dtype}; they must be integers.")
    if is_traced():
        return {**batch, "attention_mask": mask.long()}
    _check_values(backbone, **batch)
    device = input_device(backbone)
    return {name: tensor.to(device, torch.int64) for name, tensor in batch.items()}


def _check_values(
    backbone: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> None:
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise ValueError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else.")
    if not attention_mask.any(dim=1).all():
        raise ValueError("A row of the batch has no token: its attention_mask is all zero.")
    size = getattr(backbone.get_input_embeddings(), "num_embeddings", None)
    _check_range("input_ids", input_ids, size, "the vocabulary of the backbone; use its own tokenizer")
    if token_type_ids is not None:
        count = getattr(backbone.config, "type_vocab_size", None) if accepts(backbone, "token_type_ids") else None
        _check_range("token_type_ids", token_type_ids, count or None, "the segments of the backbone")


def _check_range(name: str, tensor: Tensor, size: int | None, of: str) -> None:
    low, high = (int(bound) for bound in torch.aminmax(tensor))
    if low < 0 or (size is not None and high >= size):
        end = f" to {size - 1}" if size is not None else ""
        raise ValueError(f"{name} hold {low if low < 0 else high}; they must be from 0{end}, {of}.")


def check_features(batch: Mapping[str, Any], main: str, dims: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the processed images or audio that are not `None`.

    Args:
        batch (`dict`):
            Arguments of the forward pass.
        main (`str`):
            The required argument.
        dims (`tuple[int, ...]`):
            Numbers of dimensions that it may have.

    Raises:
        TypeError, ValueError: Unless it is a tensor of finite floating-point numbers with as many dimensions.
    """
    given = {name: value for name, value in batch.items() if value is not None}
    for name, tensor in given.items():
        check_tensor(name, tensor)
        if len(tensor.shape) == 0 or len(tensor) != len(given.get(main, tensor)):
            raise ValueError(f"{name} has the shape {tuple(tensor.shape)}; it must have a row for each input.")
    if main not in given:
        raise ValueError(f"{main} is missing; give what the processor of the backbone returns.")
    found = given[main]
    if not found.is_floating_point() or found.dim() not in dims or 0 in found.shape:
        raise ValueError(
            f"{main} is {found.dtype} of the shape {tuple(found.shape)}; it must hold floating-point numbers in "
            f"{' or '.join(map(str, dims))} dimensions, as the processor of the backbone returns them."
        )
    if not is_traced() and not torch.isfinite(found).all():
        raise ValueError(f"{main} holds NaN or infinite values.")
    return given


def classification_loss(logits: Tensor, labels: Any, is_multi_label: bool) -> Tensor:
    """Return the mean loss of logits (n, num_labels): cross-entropy, or binary cross-entropy of several labels.

    Args:
        logits (`torch.FloatTensor` of shape `(n, num_labels)`):
            The logits.
        labels (`torch.Tensor` of shape `(n,)` or `(n, num_labels)`):
            True classes or -100; or, of several labels, 1 or 0 for each, of any dtype.
        is_multi_label (`bool`):
            Whether an input may have several labels.

    Raises:
        TypeError, ValueError: On other labels.
    """
    check_tensor("labels", labels)
    if not is_multi_label:
        labels = check_query_labels(labels, logits.shape[:1], logits.shape[1], "labels").to(logits.device)
        return torch.nn.functional.cross_entropy(logits, labels)
    if labels.shape != logits.shape or not ((labels == 0) | (labels == 1)).all():
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)}; of examples with several labels they must be 0 or 1, of "
            f"shape {tuple(logits.shape)}."
        )
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits))
