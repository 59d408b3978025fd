"""Labels of examples that have several, or none: lists of labels as lists of class numbers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.candidates import match_candidates
from transformers_tart.inputs.labels import number_labels, plain_label
from transformers_tart.inputs.more_labels import number_more


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


def number_label_lists(
    labels: Sequence[Any],
    class_names: Sequence[str] | None = None,
    chosen_names: Sequence[str] | None = None,
    candidates: tuple[str, ...] | None = None,
    known: tuple[str, ...] | None = None,
) -> tuple[list[list[int]], tuple[str, ...], Any]:
    """Assign class numbers to lists of labels; arguments and errors are as in [`number_labels`].

    Args:
        labels (`list`):
            A list, tuple, set or array of labels for each example. It may be empty.
        candidates (`tuple[str]`, *optional*):
            Names of the classes, in order.
        known (`tuple[str]`, *optional*):
            Classes of the support set to which the examples are added, as in [`number_more`]. All lists may be empty.

    Returns:
        `tuple[list[list[int]], tuple[str, ...], Any]`: the class numbers of each example, the names of the classes,
        and the first label of all, if there is one.

    Raises:
        ValueError: On no label at all, and on one that is twice in a list, as in rows of 0 and 1.
    """
    lists = [[plain_label(label) for label in own] for own in labels]
    for i, own in enumerate(lists):
        if len(own) > len({str(label) for label in own}):
            raise ValueError(
                f"Example {i} has a label twice, {shorten(own)}; give the names of its labels, each once, and not a "
                "row with a 0 or 1 for each class."
            )
    flat, places = [label for own in lists for label in own], [i for i, own in enumerate(lists) for _ in own]
    if not flat and known is not None:
        return lists, known, None
    if not flat:
        raise ValueError(f"All {len(lists)} examples have empty lists of labels; a classifier needs labels.")
    if known is not None:
        numbers, names = number_more(flat, known, class_names, chosen_names, places)
    else:
        numbers, names = number_labels(flat, class_names, chosen_names, places)
    if candidates is not None:
        numbers, names = match_candidates(numbers, names, candidates)
    ends = iter(numbers)
    return [sorted(next(ends) for _ in own) for own in lists], names, flat[0]


__all__ = ["are_lists", "number_label_lists"]
