"""Candidate labels: the classes by name, in place of examples or in a chosen order beside them."""

from collections.abc import Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.label_names import check_names


ARGUMENT = "candidate_labels"


def parse_candidates(labels: Any, chosen_names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of the classes, of a list or of a string with commas, as in zero-shot classification.

    Args:
        labels (`str` or `list[str]`):
            The candidate labels; at least one.
        chosen_names (`list[str]`, *optional*):
            Names that a user gave the classes by `config.id2label`.

    Raises:
        ValueError: On no label, on labels that are not strings, blank or not distinct, and on others than the chosen
            names.
        TypeError: On anything but a string or a list.
    """
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    if not isinstance(labels, (list, tuple)):
        raise TypeError(
            f"{ARGUMENT} is {shorten(labels)} of type {type(labels).__name__}; give a list of names, or a string of "
            "names between commas."
        )
    if not labels:
        raise ValueError(f"{ARGUMENT} is empty; give the names of the classes.")
    names = check_names(labels, ARGUMENT)
    if chosen_names is not None and tuple(chosen_names) != names:
        raise ValueError(
            f"{ARGUMENT} is {shorten(list(names))}, config.id2label of the model has {shorten(list(chosen_names))}; "
            "give the same names in the same order, or leave one of them out."
        )
    return names


def match_candidates(
    labels: Sequence[int], label_names: Sequence[str], candidates: tuple[str, ...], places: Sequence[int]
) -> tuple[list[int], tuple[str, ...]]:
    """Return labels, of the examples at some places, as indices into the candidate labels, and these.

    Raises:
        ValueError: On an example whose label is not among the candidate labels.
    """
    index = {name: i for i, name in enumerate(candidates)}
    outside = next((i for i, label in enumerate(labels) if label_names[label] not in index), None)
    if outside is not None:
        raise ValueError(
            f"The label of example {places[outside]} is {shorten(label_names[labels[outside]])}, which is not among "
            f"the {len(candidates)} {ARGUMENT}, {shorten(list(candidates))}; add it there, or correct it."
        )
    return [index[label_names[label]] for label in labels], candidates
