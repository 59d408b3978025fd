"""Checks of the labels, embeddings and hints of a support set."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transformers_tart.checks.arguments import shorten
from transformers_tart.hints.base import LabelHints


def check_labels(labels: Tensor, label_names: Sequence[str], has_hints: bool = False) -> None:
    """Raise a ValueError unless labels (k,) or (k, num_labels) are in range and can be told apart.

    At least two classes need examples where there are no hints. Of several labels an example, each must be that of
    some and not of all.
    """
    size, is_multi_label = len(labels), labels.dim() == 2
    most = 1 if is_multi_label else len(label_names) - 1
    if size == 0 or labels.min() < 0 or labels.max() > most:
        raise ValueError(
            f"The labels must be 0 or 1 for each of the {len(label_names)} label names."
            if is_multi_label
            else f"The labels must be indices into the {len(label_names)} label names."
        )
    if not is_multi_label:
        if len(labels.unique()) < 2 and not has_hints:
            raise ValueError("A support set needs examples of at least two classes.")
        return
    if len(label_names) < 2:
        raise ValueError("There is one label in all; give each example one of two labels, and no list.")
    counts = labels.sum(0)
    if wrong := ((counts == 0) | (counts == size)).nonzero().flatten().tolist():
        more = f" ({len(wrong)} labels are such)" if len(wrong) > 1 else ""
        raise ValueError(
            f"{'All' if counts[wrong[0]] else 'None'} of the {size} examples have the label "
            f"{shorten(label_names[wrong[0]])}{more}; give examples with it and without it, or leave the label out."
        )


def check_embeddings(embeddings: Tensor, are_compared: bool) -> None:
    """Raise a ValueError unless embeddings (k, ...) are finite, and, where they are compared, not all equal."""
    if not torch.isfinite(embeddings).all():
        raise ValueError(
            "The support embeddings hold NaN or infinite values: the backbone is broken, or overflows its dtype. "
            "Load it with dtype=torch.float32 or torch.bfloat16."
        )
    if are_compared and (embeddings == embeddings[:1]).all():
        raise ValueError("All support embeddings are equal, so nothing can be learned from them.")


def check_hints(hints: LabelHints | None, given_hints: Tensor | None, size: int, num_labels: int) -> None:
    """Raise a ValueError unless hints are those of all classes, and scores by hints of the user of all examples."""
    num_given = 0 if hints is None else len(hints.given)
    found = None if given_hints is None else tuple(given_hints.shape)
    if found != ((size, num_given, num_labels) if num_given else None):
        raise ValueError(
            f"given_hints is of shape {found}, for {num_given} hints of the user, {size} examples and {num_labels} "
            "classes; give a score for each."
        )
    too_few = size > 0 and num_labels < 2
    if hints is not None and (hints.num_labels != num_labels or too_few):
        raise ValueError(f"The hints are for {hints.num_labels} classes, there are {num_labels}.")


__all__ = ["check_embeddings", "check_hints", "check_labels"]
