"""Explanations: how views, hints and examples add up to a prediction."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from transformers_tart.reasoners.state import Votes
from transformers_tart.support import PreparedSupport, SupportSet


logger = logging.get_logger(__name__)

LEAST_WEIGHT = 0.05  # of a hint that is of use; a scaled hint has a spread of about 1


def explain_answers(
    votes: Votes,
    support: SupportSet,
    label_names: Sequence[Any],
    view_names: Sequence[str],
    most: int,
) -> list[dict[str, Any]]:
    """Return an explanation of each prediction, of values that JSON has.

    Args:
        votes ([`Votes`]):
            Result of `TartReasoner.explain` for one task of n queries.
        support ([`SupportSet`]):
            The support set.
        label_names (`list[str]`), view_names (`list[str]`):
            Names of the classes and of the views.
        most (`int`):
            Most examples to list.
    """
    if len(label_names) == 1:  # a single label, against none
        label_names = (*label_names, None)
    probabilities = votes.logits[0].softmax(-1)
    hint_names = () if support.hints is None else support.hints.names
    num_views = len(votes.view_logits)  # none without examples
    views = _list_votes(votes.view_logits[:, 0], votes.view_weights[0], view_names[:num_views], label_names)
    hints = _list_votes(votes.hint_logits[:, 0], votes.hint_weights[0], hint_names, label_names)
    explanations = []
    for i, row in enumerate(probabilities):
        best = int(row.argmax())
        explanations.append(
            {
                "label": label_names[best],
                "score": float(row[best]),
                "views": [each[i] for each in views],
                "hints": [each[i] for each in hints],
                "examples": []
                if votes.influence is None
                else _list_examples(votes.influence[0, i], support, label_names, most),
            }
        )
    return explanations


def _list_votes(
    logits: Tensor, weights: Tensor, names: Sequence[str], label_names: Sequence[Any]
) -> list[list[dict[str, Any]]]:
    """Return weight and favored label of each voter for each query, given its part of the logits (V, n, C)."""
    scores, labels = logits.softmax(-1).max(-1)
    return [
        [
            {"name": name, "weight": float(weight), "label": label_names[int(label)], "score": float(score)}
            for label, score in zip(*of_voter, strict=True)
        ]
        for name, weight, *of_voter in zip(names, weights, labels, scores, strict=True)
    ]


def _list_examples(
    influence: Tensor, support: SupportSet, label_names: Sequence[Any], most: int
) -> list[dict[str, Any]]:
    """Return the examples of the largest influence (k,), whatever its sign, the largest first."""
    order = torch.argsort(influence.abs(), descending=True, stable=True)[:most].tolist()
    return [
        {
            "index": i,
            "label": label_names[int(support.labels[i])],
            "weight": float(influence[i]),
            **({} if support.texts is None else {"text": support.texts[i]}),
        }
        for i in order
    ]


def warn_about_hints(prepared: PreparedSupport) -> None:
    """Log once the hints that predict the examples no better than chance; never a label."""
    combination, hints = prepared.state.combination, prepared.support.hints
    if combination is None or hints is None or not prepared.support.has_two_classes:
        return
    for name, weight in zip(hints.names, combination.hints.mean(0).tolist(), strict=True):
        if weight < LEAST_WEIGHT:
            logger.warning_once(
                f"The label hint {name} does not predict the labels of the {len(prepared.support)} examples and "
                f"{'is almost ignored' if weight > -LEAST_WEIGHT else 'counts against itself'} (weight {weight:.2f}): "
                "the names of the classes may be misleading. Describe the classes (label_descriptions), or leave "
                "hints out (hints=None, on the command line --no-hints)."
            )
