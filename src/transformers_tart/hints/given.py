"""Hints of the user: functions of inputs, or scores that are given with the inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transformers_tart.checks.arguments import shorten


DEFAULT_NAME = "given"


def parse_given(hints: Any) -> dict[str, Any]:
    """Return hints of the user by their names: functions `(inputs, label_names) -> scores`, or scores.

    Raises:
        TypeError: On anything else.
    """
    if hints is None:
        return {}
    if not isinstance(hints, Mapping):
        return {DEFAULT_NAME: _checked(DEFAULT_NAME, hints)}
    return {str(name): _checked(str(name), value) for name, value in hints.items()}


def is_given(value: Any) -> bool:
    """Return whether a value is a hint of the user: a function, or an array."""
    return callable(value) or isinstance(value, Tensor) or hasattr(value, "__array__")


def functions_of(given: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Return the hints of the user that are functions, which can score any input."""
    return {name: value for name, value in given.items() if callable(value)}


def score_given(
    names: Sequence[str], given: Mapping[str, Any], inputs: Sequence[Any], label_names: Sequence[str]
) -> Tensor | None:
    """Score inputs by hints of the user.

    Args:
        names (`list[str]`):
            Names of the hints, in order.
        given (`dict`):
            Functions or scores (n, classes) by these names.
        inputs (`list`), label_names (`list[str]`):
            n inputs as they were given, and the names of the classes.

    Returns:
        `torch.FloatTensor` of shape `(n, len(names), classes)`, float32; `None` without names.

    Raises:
        ValueError: When a hint is missing, or scores are infinite or of another shape.
    """
    if missing := [name for name in names if name not in given]:
        raise ValueError(
            f"The examples were scored by the hint {missing[0]!r} of the user, which is missing for these inputs; "
            f"give hints={{{missing[0]!r}: ...}}, a function of inputs and label names or their scores."
        )
    found = [_score(name, given[name], inputs, label_names) for name in names]
    return torch.stack(found, dim=1) if found else None


def _score(name: str, hint: Any, inputs: Sequence[Any], label_names: Sequence[str]) -> Tensor:
    if not inputs:
        return torch.zeros(0, len(label_names))
    scores = as_scores(name, hint(list(inputs), list(label_names)) if callable(hint) else hint)
    expected = (len(inputs), len(label_names))
    if tuple(scores.shape) != expected:
        raise ValueError(
            f"The hint {name!r} gives scores of shape {tuple(scores.shape)} for {expected[0]} inputs and "
            f"{expected[1]} classes; it must give one of shape {expected}."
        )
    if scores.isinf().any():
        raise ValueError(f"The hint {name!r} gives infinite scores; give finite ones, or NaN where there is none.")
    return scores.detach().cpu()


def as_scores(name: str, values: Any) -> Tensor:
    """Return the scores of a hint as a float32 tensor; a ValueError where they are no numbers."""
    try:
        return torch.as_tensor(np.array(values) if hasattr(values, "to_numpy") else values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as err:
        raise ValueError(f"The hint {name!r} gives no array of numbers: {err}") from err


def check_count(scores: Mapping[str, Any], count: int, is_all: bool = True) -> None:
    """Raise a ValueError unless hints that are scores are those of `count` inputs, of these and more if not `is_all`.

    Args:
        scores (`dict`):
            Hints of the user by name, of which functions score any input.
    """
    for name, hint in scores.items():
        if callable(hint):
            continue
        size = len(hint) if hint.dim() else 0
        if size < count or (is_all and size > count):
            raise ValueError(
                f"The hint {name!r} has scores of shape {tuple(hint.shape)}, and there are {count} inputs"
                f"{'' if is_all else ' or more'}; give a row for each."
            )


def _checked(name: str, value: Any) -> Any:
    if is_given(value) or isinstance(value, (list, tuple)):
        return value
    raise TypeError(
        f"The hint {name!r} is {shorten(value)} of type {type(value).__name__}; give a function of inputs and label "
        "names, or an array of their scores."
    )


__all__ = ["as_scores", "check_count", "functions_of", "is_given", "parse_given", "score_given"]
