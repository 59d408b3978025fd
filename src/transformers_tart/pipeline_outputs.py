"""What pipelines answer: labels and scores, or why there are none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.pipelines.text_classification import ClassificationFunction, sigmoid, softmax

from transformers_tart.checks.arguments import as_count, shorten


def answer_options(top_k: int | None | str, function_to_apply: str | ClassificationFunction | None) -> dict[str, Any]:
    """The options that were given, checked; an empty string stands for no `top_k`.

    Raises:
        ValueError: On options that make no sense.
    """
    options: dict[str, Any] = {}
    if not (isinstance(top_k, str) and top_k == ""):
        options["top_k"] = None if top_k is None else as_count(top_k, "top_k", ", or None for all classes")
    if function_to_apply is not None:
        names = ("DEFAULT", *ClassificationFunction.__members__)
        name = getattr(function_to_apply, "name", function_to_apply)
        if not isinstance(name, str) or name.upper() not in names:
            raise ValueError(
                f"function_to_apply is {shorten(function_to_apply)}; it must be "
                '"default", "softmax", "sigmoid" or "none".'
            )
        options["function_to_apply"] = function_to_apply
    return options


def answer(
    logits: np.ndarray,
    label_names: Sequence[str],
    top_k: int | None | str,
    function_to_apply: str | ClassificationFunction,
) -> Any:
    """The best label of logits (classes,) and its score, or a list of the best where `top_k` is given."""
    function = str(getattr(function_to_apply, "value", function_to_apply)).lower()
    scores = {"sigmoid": sigmoid, "none": lambda x: x}.get(function, softmax)(logits)
    results: list[dict[str, Any]] = [
        {"label": name, "score": float(score)} for name, score in zip(label_names, scores, strict=True)
    ]
    results.sort(key=lambda result: result["score"], reverse=True)
    return results[0] if isinstance(top_k, str) else results[:top_k]


def failure(error: Exception, as_list: bool) -> Any:
    """What stands for the answer to an input that could not be read."""
    failed = {"label": None, "score": float("nan"), "error": str(error)}
    return [failed] if as_list else failed


__all__ = ["answer", "answer_options", "failure"]
