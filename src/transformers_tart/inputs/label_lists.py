"""Labels of examples that have several, or none: lists of labels as lists of class numbers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.labels import plain_label


def are_lists(labels: Sequence[Any]) -> bool:
    """Return whether the labels of examples are lists of labels.

    Raises:
        TypeError: When only some are.
    """
    single = [i for i, label in enumerate(labels) if not _is_list(label)]
    if single and len(single) < len(labels):
        raise TypeError(
            f"The label of example {single[0]} is {shorten(labels[single[0]])}, and other examples have lists of "
            "labels; give a list to each example, which may be empty."
        )
    return not single and len(labels) > 0


def _is_list(label: Any) -> bool:
    is_text = isinstance(label, (str, bytes, Mapping))
    return not is_text and getattr(label, "ndim", 1) == 1 and (isinstance(label, Collection) or hasattr(label, "ndim"))


def flatten_lists(labels: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return the labels of all lists in turn, and for each the number of its example.

    Raises:
        ValueError: On a label that is twice in a list, as in rows of 0 and 1.
    """
    lists = [[plain_label(label) for label in own] for own in labels]
    for i, own in enumerate(lists):
        if len(own) > len({str(label) for label in own}):
            raise ValueError(
                f"Example {i} has a label twice, {shorten(own)}; give the names of its labels, each once, and not a "
                "row with a 0 or 1 for each class."
            )
    return [label for own in lists for label in own], [i for i, own in enumerate(lists) for _ in own]


def group_numbers(numbers: Sequence[int], places: Sequence[int], count: int) -> list[list[int]]:
    """Return the sorted class numbers of each of `count` examples, given all in turn and the examples they are of."""
    lists: list[list[int]] = [[] for _ in range(count)]
    for number, place in zip(numbers, places, strict=True):
        lists[place].append(number)
    return [sorted(own) for own in lists]


__all__ = ["are_lists", "flatten_lists", "group_numbers"]
