"""In-context prompting of the same language model, with and without contextual calibration.

Labels are written as words where their names have a meaning. The probabilities are the mean over several orders of the
examples, and both methods read each prompt once. The text that embeddings have before each text is left out.
"""

import random
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.prompting import ANSWER, QUESTION, SEPARATOR, prompt_log_probs
from transformers_tart.hints import readable


logger = logging.get_logger(__name__)

# Queries without content (contextual calibration, arXiv 2102.09690, section 5).
CONTENT_FREE = ("N/A", "[MASK]", "")
ORDERS = 2  # of the examples: that of the support set, and permutations by its seed
# Settings on which records of both methods depend.
PROMPTS = {"template": QUESTION + ANSWER + SEPARATOR, "labels": "words", "orders": ORDERS}


def prompting(context: TaskContext, support: Support) -> Tensor:
    """Return probabilities in proportion to the mean likelihood of the tokens of each label."""
    return _log_probs(context, support)[:, : -len(CONTENT_FREE)].exp().mean(0)


def calibrated_prompting(context: TaskContext, support: Support) -> Tensor:
    """Divide the probabilities of prompting by those of queries without content (arXiv 2102.09690)."""
    log_probs = _log_probs(context, support)
    empty = log_probs[:, -len(CONTENT_FREE) :].exp().mean(1, keepdim=True)
    return (log_probs[:, : -len(CONTENT_FREE)] - empty.log()).softmax(-1).mean(0)


def _log_probs(context: TaskContext, support: Support) -> Tensor:
    """Return log-probabilities (orders, n, classes) of the labels after the test texts and queries without content."""
    return context.read_prompts("prompting", support, partial(_read, context, support))


def _read(context: TaskContext, support: Support) -> Tensor:
    texts, queries, models = context.texts(support), [*context.test_texts, *CONTENT_FREE], context.models
    if any(not isinstance(text, str) for text in (*texts, *queries)):
        raise ValueError(f"{context.task.name} has text pairs, for which there is no prompt.")
    if models.prompt:
        logger.warning_once("The prompt before each text is for embeddings, and in-context prompting leaves it out.")
    labels, names = context.labels(support).tolist(), write_labels(context.task.label_names)
    limits: dict[str, Any] = {"max_length": models.max_length, "max_prompt": models.max_prompt}
    found = []
    for order in draw_orders(len(texts), support.seed):
        given: tuple = ([texts[i] for i in order], [labels[i] for i in order], queries, names)
        result = prompt_log_probs(
            models.language_model, models.tokenizer, *given, batch_size=models.batch_size, **limits
        )
        found.append(result.log_probs.double().log_softmax(-1))
    return torch.stack(found)


def write_labels(names: tuple[str, ...]) -> list[str]:
    """Return the labels of classes in a prompt: names as words where these have a meaning and are distinct."""
    words = [readable(name) or name for name in names]
    return words if len(set(words)) == len(words) else list(names)


def draw_orders(count: int, seed: int) -> list[list[int]]:
    """Return the orders in which examples are shown: one where there are fewer than two."""
    generator = random.Random(seed)
    orders = [list(range(count))]
    while count > 1 and len(orders) < ORDERS:
        orders.append(generator.sample(range(count), count))
    return orders
