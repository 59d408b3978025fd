"""Formats of answers: those of text-classification, and for candidate labels those of zero-shot-classification."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from transformers.pipelines.text_classification import sigmoid, softmax

from transformers_tart.answers.limits import Limits


NO_LIMITS = Limits()
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
        limits: limits within which there is an answer.
    """

    label_names: tuple[str | int | bool, ...]
    function: str = "default"
    top_k: Any = ""
    with_sequence: bool = False
    is_alone: bool = False
    limits: Limits = NO_LIMITS

    def write(self, item: Any, logits: Tensor, out_of_scope: float | None = None) -> Any:
        """Return the answer for one input, given its logits (C,), and how far it is out of scope if that is known."""
        values = logits.float().numpy()
        scores = list(map(float, FUNCTIONS[self.function](values)))
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        within: list[tuple[Any, float]] = [
            (self.label_names[i], scores[i]) for i in self._within_limits(order, values, out_of_scope)
        ]
        ranked = within or [(None, scores[order[0]])]
        if self.with_sequence:
            labels, listed = zip(*ranked, strict=True)
            return {"sequence": item, "labels": list(labels), "scores": list(listed)}
        more = {} if out_of_scope is None else {"out_of_scope": out_of_scope}
        results = [{"label": name, "score": score, **more} for name, score in ranked]
        is_list = self.limits.excluded is not None or not isinstance(self.top_k, str)
        return results[: None if isinstance(self.top_k, str) else self.top_k] if is_list else results[0]

    def _within_limits(self, order: list[int], values: np.ndarray, out_of_scope: float | None) -> list[int]:
        """Return the classes that are within the limits, of these in order with their logits; none if not the best."""
        limits = self.limits
        if limits.most is not None and out_of_scope is not None and out_of_scope > limits.most:
            return []
        if limits.least is None and limits.excluded is None:
            return order
        probabilities = FUNCTIONS["sigmoid" if self.is_alone else "softmax"](values)
        if limits.least is not None and probabilities[order[0]] < limits.least:
            return []
        least = -np.inf if limits.excluded is None else limits.excluded
        return [i for i in order if i == order[0] or probabilities[i] >= least]

    def write_error(self, item: Any, error: Exception) -> Any:
        """Return the answer for an input that cannot be read."""
        if self.with_sequence:
            return {"sequence": item, "labels": [], "scores": [], "error": str(error)}
        result = {"label": None, "score": float("nan"), "error": str(error)}
        return result if isinstance(self.top_k, str) and self.limits.excluded is None else [result]


def choose_format(
    label_names: tuple[str | int | bool, ...],
    num_examples: int,
    top_k: Any = "",
    function_to_apply: str = "default",
    multi_label: bool = False,
    has_lists: bool = False,
    limits: Limits = NO_LIMITS,
) -> AnswerFormat:
    """Return the format of answers: that of zero-shot classification where there are no examples and no `top_k`.

    Raises:
        ValueError: When labels are to be scored alone, with examples that have one label each (not `has_lists`).
    """
    if multi_label and num_examples and not has_lists:
        raise ValueError(
            "multi_label is True, which is for candidate_labels without examples, and these have one label each; "
            "leave it out, or give lists of labels."
        )
    is_alone = multi_label or has_lists or len(label_names) == 1
    function = "sigmoid" if is_alone and function_to_apply == "default" else function_to_apply
    with_sequence = num_examples == 0 and isinstance(top_k, str)
    return AnswerFormat(label_names, function, top_k, with_sequence, is_alone, limits)
