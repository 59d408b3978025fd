"""Labels of examples that are added to a support set, whose classes are numbered already."""

from collections.abc import Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.labels import number_labels, plain_label


def number_more(
    labels: Sequence[Any],
    known: tuple[str, ...],
    class_names: Sequence[str] | None = None,
    chosen_names: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> tuple[list[int], tuple[str, ...]]:
    """Assign class numbers to the labels of more examples, which may be of new classes.

    Args:
        labels (`list`):
            The labels, as in [`number_labels`].
        known (`tuple[str]`):
            Names of the classes that there are, in order.
        class_names (`list[str]`, *optional*):
            The names of a `ClassLabel` feature.
        chosen_names (`list[str]`, *optional*):
            Names that the user set in `config.id2label`, to which no class can be added.
        places (`list[int]`, *optional*):
            As in [`number_labels`].

    Returns:
        `tuple[list[int], tuple[str, ...]]`: indices, and the names of all classes in order: that of a `ClassLabel`
        feature that has all of them; else sorted, where the known classes are; else the new ones last.

    Raises:
        ValueError: On labels as in [`number_labels`], and on numbers where the classes have other names.
        TypeError: On labels of other kinds, or of several.
    """
    if chosen_names is not None:
        return number_labels(labels, class_names, chosen_names, places)[0], known
    found, own = number_labels(labels, class_names, places=places)
    order = _merge(known, own, class_names is not None, isinstance(plain_label(labels[0]), str))
    return [order.index(own[number]) for number in found], order


def _merge(known: tuple[str, ...], own: tuple[str, ...], is_feature: bool, are_strings: bool) -> tuple[str, ...]:
    """Return the names of known classes and of those of more examples, in order."""
    new = [name for name in own if name not in known]
    if not new:
        return known
    if is_feature and set(known) <= set(own):
        return own
    are_numbers = not is_feature and not are_strings
    if are_numbers and not all(name.removeprefix("-").isdecimal() for name in (*known, *new)):
        raise ValueError(
            f"The labels {shorten(new)} are numbers or booleans, and the classes are named "
            f"{shorten(list(known))}; give the names of the classes as strings."
        )
    key = int if are_numbers else str
    is_sorted = list(known) == sorted(known, key=key)
    return tuple(sorted((*known, *new), key=key)) if is_sorted else (*known, *new)


__all__ = ["number_more"]
