"""Labels of examples as class numbers and names."""

import enum
import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten, well_formed
from transformers_tart.checks.label_names import check_names
from transformers_tart.inputs.containers import is_missing


IGNORED = -100  # the index that PyTorch's losses ignore; many prepared datasets mark unlabeled rows by it
STRINGS = "strings"
KINDS = (STRINGS, "integers", "booleans")
UNKNOWN_CLASS = -1  # of an unlabeled row in a ClassLabel column of `datasets`


def number_labels(
    labels: Sequence[Any],
    class_names: Sequence[str] | None = None,
    chosen_names: Sequence[str] | None = None,
    places: Sequence[int] | None = None,
) -> tuple[list[int], tuple[str, ...]]:
    """Assign class numbers to labels, by the order of the classes.

    Args:
        labels (`list`):
            Strings, integers, whole floats or booleans, of one kind; scalars of numpy and torch, members of an `Enum`.
        class_names (`list[str]`, *optional*):
            The names of a `ClassLabel` feature.
        chosen_names (`list[str]`, *optional*):
            Names that the user set in `config.id2label`: the labels are these or their indices.
        places (`list[int]`, *optional*):
            Numbers of the examples that the labels are of, for messages; from 0 in turn when not given.

    Returns:
        `tuple[list[int], tuple[str, ...]]`: indices, and the names of the classes in order.

    Raises:
        ValueError: On examples without a label, numbers that are not whole, and labels outside the names.
        TypeError: On labels of other kinds, or of several.
    """
    plain, places = [plain_label(label) for label in labels], places or range(len(labels))
    _check_labeled(plain, class_names is not None, places)
    kinds = {kind_of(label, f"example {i}") for i, label in zip(places, plain, strict=True)}
    if len(kinds) > 1:
        first, second = sorted(kinds, reverse=True)[:2]
        raise TypeError(f"Some labels are {first} and some are {second}; use one kind.")
    values = plain if kinds == {STRINGS} else [int(label) for label in plain]
    if class_names is not None:
        names = check_names(class_names, "The ClassLabel feature of the examples")
        found = _look_up(values, names, "its ClassLabel feature", places)
        return (found, names) if chosen_names is None else _rename(found, names, tuple(chosen_names))
    if chosen_names is not None:
        return _look_up(values, chosen_names, "config.id2label", places), tuple(chosen_names)
    ordered = sorted(set(values))
    check_spaces(ordered)
    index = {label: i for i, label in enumerate(ordered)}
    named = [bool(label) for label in ordered] if kinds == {"booleans"} else ordered
    return [index[label] for label in values], tuple(str(label) for label in named)


def plain_label(label: Any) -> Any:
    """Return a label of an `Enum`, numpy or torch as a Python value, strings without lone surrogates."""
    if isinstance(label, enum.Enum):
        label = label.value
    if hasattr(label, "item") and not getattr(label, "is_meta", False) and getattr(label, "ndim", 0) == 0:
        label = label.item()
    return well_formed(str(label)) if isinstance(label, str) else label


def restore_labels(names: Sequence[str], kind: str) -> tuple[str | int | bool, ...]:
    """Return the labels of a kind from the names of their classes; the names where a user has changed these."""
    booleans = {str(value): value for value in (False, True)}
    if kind == "booleans" and set(names) <= booleans.keys():
        return tuple(booleans[name] for name in names)
    if kind == "integers" and all(re.fullmatch("-?[0-9]+", name) for name in names):
        return tuple(int(name) for name in names)
    return tuple(names)


def _check_labeled(labels: Sequence[Any], of_class_label: bool, places: Sequence[int]) -> None:
    """Raise a ValueError that counts the examples without a label."""
    markers = (IGNORED, UNKNOWN_CLASS) if of_class_label else (IGNORED,)

    def is_unlabeled(label: Any) -> bool:
        if isinstance(label, str):
            return label.strip() in ("", str(IGNORED))
        return is_missing(label) or (isinstance(label, numbers.Real) and label in markers)

    unlabeled = [i for i, label in enumerate(labels) if is_unlabeled(label)]
    if unlabeled:
        raise ValueError(
            f"{len(unlabeled)} of {len(labels)} examples have no label, the first of them example "
            f"{places[unlabeled[0]]} ({labels[unlabeled[0]]!r}); drop them, or label them."
        )


def kind_of(label: Any, where: str) -> str:
    """Return the kind of a label: `"strings"`, `"integers"` or `"booleans"`.

    Raises:
        ValueError: On numbers that are not whole.
        TypeError: On anything else.
    """
    if isinstance(label, str):
        return STRINGS
    if isinstance(label, bool):
        return "booleans"
    if isinstance(label, numbers.Integral):
        return "integers"
    if not isinstance(label, float):
        raise TypeError(
            f"The label of {where} is {type(label).__name__}; labels are strings, integers, whole floats or booleans."
        )
    if not math.isfinite(label) or not label.is_integer():
        raise ValueError(
            f"The label of {where} is {label}; labels are classes, so numbers must be whole. Round them, or "
            "name the classes by strings."
        )
    return "integers"


def _look_up(labels: Sequence[str | int], names: Sequence[str], of: str, places: Sequence[int]) -> list[int]:
    """Return the class numbers of labels that are names, or already class numbers."""
    are_names = isinstance(labels[0] if labels else 0, str)
    index: dict[Any, int] = {name if are_names else i: i for i, name in enumerate(names)}
    outside = next((i for i, label in enumerate(labels) if label not in index), None)
    if outside is not None:
        raise ValueError(
            f"The label of example {places[outside]} is {labels[outside]!r}, outside the {len(names)} names of {of}, "
            f"{shorten(list(names))}; correct the label or the names."
        )
    return [index[label] for label in labels]


def _rename(labels: list[int], names: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Return labels under the names of a user: by name where the names are the same, else in order."""
    if set(names) == set(chosen):
        return [chosen.index(names[label]) for label in labels], chosen
    if len(names) != len(chosen):
        raise ValueError(
            f"config.id2label has {len(chosen)} names, the ClassLabel feature of the examples has {len(names)}; set "
            "config.id2label to a name for each class."
        )
    return labels, chosen


def check_spaces(labels: Sequence[str | int]) -> None:
    """Raise a ValueError for labels that differ by spaces at their ends alone, which would be two classes."""
    first: dict[str, str | int] = {}
    for label in labels:
        if (other := first.setdefault(str(label).strip(), label)) != label:
            raise ValueError(f"The labels {other!r} and {label!r} differ by spaces alone; write them alike.")
