"""Formats of answers: those of text-classification, and for candidate labels those of zero-shot-classification."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers.pipelines.text_classification import sigmoid, softmax


FUNCTIONS: dict[str, Callable] = {"default": softmax, "softmax": softmax, "sigmoid": sigmoid, "none": np.asarray}


@dataclass(frozen=True)
class AnswerFormat:
    """The format of the answers of a call.

    Attributes:
        label_names: names of the classes, in order; or labels of the kind that was given.
        function: name of the function that turns logits into scores.
        top_k: number of classes to list, `None` for all, `""` for the best alone.
        with_sequence: whether an answer is `{"sequence", "labels", "scores"}`, as in zero-shot classification.
        is_alone: whether each label is scored on its own.
    """

    label_names: tuple[str | int | bool, ...]
    function: str = "default"
    top_k: Any = ""
    with_sequence: bool = False
    is_alone: bool = False

    def write(self, item: Any, logits: Tensor) -> Any:
        """Return the answer for one input, given its logits (C,)."""
        scores = FUNCTIONS[self.function](logits.float().numpy())
        ranked = sorted(zip(self.label_names, map(float, scores), strict=True), key=lambda pair: -pair[1])
        if self.with_sequence:
            labels, values = zip(*ranked, strict=True)
            return {"sequence": item, "labels": list(labels), "scores": list(values)}
        results = [{"label": name, "score": score} for name, score in ranked]
        return results[0] if isinstance(self.top_k, str) else results[: self.top_k]

    def write_error(self, item: Any, error: Exception) -> Any:
        """Return the answer for an input that cannot be read."""
        if self.with_sequence:
            return {"sequence": item, "labels": [], "scores": [], "error": str(error)}
        result = {"label": None, "score": float("nan"), "error": str(error)}
        return result if isinstance(self.top_k, str) else [result]


def choose_format(
    label_names: tuple[str | int | bool, ...],
    num_examples: int,
    top_k: Any = "",
    function_to_apply: str = "default",
    multi_label: bool = False,
) -> AnswerFormat:
    """Return the format of answers: that of zero-shot classification where there are no examples and no `top_k`.

    Raises:
        ValueError: When labels are to be scored alone, with examples.
    """
    if multi_label and num_examples:
        raise ValueError(
            "multi_label is True, which is for candidate_labels without examples, since each example has one label; "
            "leave it out, or leave the examples out."
        )
    is_alone = multi_label or len(label_names) == 1
    function = "sigmoid" if is_alone and function_to_apply == "default" else function_to_apply
    return AnswerFormat(label_names, function, top_k, num_examples == 0 and isinstance(top_k, str), is_alone)
