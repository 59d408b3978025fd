"""In-context prompting of the same language model, with and without contextual calibration."""

from typing import Any

from torch import Tensor

from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.prompting import prompt_log_probs


# Queries without content (contextual calibration, arXiv 2102.09690, section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")


def prompting(context: TaskContext, support: Support) -> Tensor:
    """Return probabilities in proportion to the mean likelihood of the tokens of each label name."""
    return _log_probs(context, support).exp()


def calibrated_prompting(context: TaskContext, support: Support) -> Tensor:
    """Divide the probabilities of prompting by those of queries without content (arXiv 2102.09690)."""
    log_probs = _log_probs(context, support, CONTENT_FREE)
    empty = log_probs[-len(CONTENT_FREE) :].exp().mean(0)
    return (log_probs[: -len(CONTENT_FREE)] - empty.log()).softmax(-1)


def _log_probs(context: TaskContext, support: Support, more: tuple[str, ...] = ()) -> Tensor:
    """Return log-probabilities (n, classes) of the label names after each test text and after more texts."""
    texts, queries, models = context.texts(support), [*context.test_texts, *more], context.models
    if any(not isinstance(text, str) for text in (*texts, *queries)):
        raise ValueError(f"{context.task.name} has text pairs, for which there is no prompt.")
    labels, names = context.labels(support).tolist(), context.task.label_names
    given: tuple = (texts, labels, queries, names)
    limits: dict[str, Any] = {"max_length": models.max_length, "max_prompt": models.max_prompt}
    result = prompt_log_probs(models.language_model, models.tokenizer, *given, batch_size=models.batch_size, **limits)
    return result.log_probs.double().log_softmax(-1)
