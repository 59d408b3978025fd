"""Labels of examples: which there are, in which order, and what they are called."""

import enum
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.checks.bounds import MAX_CLASSES
from transformers_tart.inputs.containers import is_missing


# What PyTorch's losses leave out; many prepared datasets mark rows without a label by it.
IGNORED = -100
# What `datasets` gives a ClassLabel column of rows without a label.
UNKNOWN_CLASS = -1
LABEL_ARGUMENTS = ("id2label", "label2id", "num_labels")

_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace lone surrogates, which no encoding and no tokenizer takes, by U+FFFD."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def number_labels(
    labels: Sequence[Any], class_names: Sequence[str] | None = None, chosen_names: Sequence[str] | None = None
) -> tuple[list[int], tuple[str, ...]]:
    """Number labels by the order of their classes.

    Args:
        labels (`list`):
            Strings, integers, whole floats or booleans, of one kind; scalars of numpy and torch, members of an `Enum`.
        class_names (`list[str]`, *optional*):
            The names of a `ClassLabel` feature.
        chosen_names (`list[str]`, *optional*):
            Names that a user gave the classes by `config.id2label`: the labels are these or their indices.

    Returns:
        `tuple[list[int], tuple[str, ...]]`: indices, and the names of the classes in order.

    Raises:
        ValueError: On examples without a label, numbers that are not whole, and labels outside the names.
        TypeError: On labels of other kinds, or of several.
    """
    plain = [plain_label(label) for label in labels]
    _check_labeled(plain, class_names is not None)
    kinds = {kind_of(label, f"example {i}") for i, label in enumerate(plain)}
    if len(kinds) > 1:
        first, second = sorted(kinds, reverse=True)[:2]
        raise TypeError(f"Some labels are {first} and some are {second}; use one kind.")
    values = plain if kinds == {"strings"} else [int(label) for label in plain]
    if class_names is not None:
        names = check_names(class_names, "The ClassLabel feature of the examples")
        numbers_ = _look_up(values, names, "its ClassLabel feature")
        return (numbers_, names) if chosen_names is None else _rename(numbers_, names, tuple(chosen_names))
    if chosen_names is not None:
        return _look_up(values, chosen_names, "config.id2label"), tuple(chosen_names)
    ordered = sorted(set(values))
    index = {label: i for i, label in enumerate(ordered)}
    named = [bool(label) for label in ordered] if kinds == {"booleans"} else ordered
    return [index[label] for label in values], tuple(str(label) for label in named)


def plain_label(label: Any) -> Any:
    """Return a label as a Python value: what an `Enum`, numpy and torch wrap, without lone surrogates."""
    if isinstance(label, enum.Enum):
        label = label.value
    if hasattr(label, "item") and not getattr(label, "is_meta", False) and getattr(label, "ndim", 0) == 0:
        label = label.item()
    return clean(str(label)) if isinstance(label, str) else label


def _check_labeled(labels: Sequence[Any], of_class_label: bool) -> None:
    """Raise a ValueError that counts the examples without a label."""

    def is_unlabeled(label: Any) -> bool:
        if isinstance(label, str):
            return not label.strip() or label.strip() == str(IGNORED)
        if is_missing(label):
            return True
        return isinstance(label, numbers.Real) and (label == IGNORED or (of_class_label and label == UNKNOWN_CLASS))

    unlabeled = [i for i, label in enumerate(labels) if is_unlabeled(label)]
    if unlabeled:
        raise ValueError(
            f"{len(unlabeled)} of {len(labels)} examples have no label, the first of them example {unlabeled[0]} "
            f"({labels[unlabeled[0]]!r}); drop them, or label them."
        )


def kind_of(label: Any, where: str) -> str:
    """Return what kind of label this is: `"strings"`, `"integers"` or `"booleans"`.

    Raises:
        ValueError: On numbers that are not whole.
        TypeError: On anything else.
    """
    if isinstance(label, str):
        return "strings"
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


def _look_up(labels: Sequence[str | int], names: Sequence[str], of: str) -> list[int]:
    """Indices of labels that are names or indices already."""
    index: dict[Any, int] = {name: i for i, name in enumerate(names)}
    if not isinstance(labels[0] if labels else 0, str):
        index = {i: i for i in range(len(names))}
    outside = [i for i, label in enumerate(labels) if label not in index]
    if outside:
        raise ValueError(
            f"The label of example {outside[0]} is {labels[outside[0]]!r}, outside the {len(names)} names of {of}, "
            f"{_shorten(names)}; mend the label or the names."
        )
    return [index[label] for label in labels]


def _rename(labels: list[int], names: tuple[str, ...], chosen: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    """Labels under the names a user chose: by name where these are the same, else in order."""
    if set(names) == set(chosen):
        return [chosen.index(names[label]) for label in labels], chosen
    if len(names) != len(chosen):
        raise ValueError(
            f"config.id2label has {len(chosen)} names, the ClassLabel feature of the examples has {len(names)}; set "
            "config.id2label to a name for each class."
        )
    return labels, chosen


def _shorten(names: Sequence[str], most: int = 5) -> str:
    shown = [repr(name) for name in names[:most]] + ["..."] * (len(names) > most)
    return f"[{', '.join(shown)}]"


def check_names(names: Any, where: str) -> tuple[str, ...]:
    """Return the names of classes as a tuple.

    Raises:
        ValueError: On names that are no strings, blank or not distinct.
    """
    found = tuple(names)
    wrong = [i for i, name in enumerate(found) if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise ValueError(
            f"{where} names class {wrong[0]} {found[wrong[0]]!r}; a name must be a string that is not blank."
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise ValueError(f"{where} names two classes {twice!r}; each class needs a name of its own.")
    return tuple(clean(name) for name in found)


def config_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the names of the classes in `config.id2label`, in order.

    Raises:
        ValueError: When it does not name the classes 0 to n - 1, each once.
    """
    return _in_order(config.id2label, "config.id2label")


def class_numbers(id2label: Any, where: str) -> dict[int, Any]:
    """Return names by class number; JSON has the numbers as strings.

    Raises:
        ValueError: When this is no dict of numbers.
    """
    if not isinstance(id2label, Mapping):
        raise ValueError(f"{where} is {type(id2label).__name__}; it must be a dict of class numbers and names.")
    try:
        return {int(number): name for number, name in id2label.items()}
    except (TypeError, ValueError) as err:
        raise ValueError(f"The keys of {where} are {list(id2label)[:5]}; they must be class numbers.") from err


def _in_order(id2label: Any, where: str) -> tuple[str, ...]:
    named = class_numbers(id2label, where)
    if sorted(named) != list(range(len(named))):
        raise ValueError(f"The keys of {where} are {sorted(named)[:5]}; they must be 0 to {len(named) - 1}.")
    return check_names([named[i] for i in range(len(named))], where)


def set_config_names(config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Name the classes in a config."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}


def are_usual(names: Sequence[str]) -> bool:
    """Return whether these are the names that transformers gives classes where nobody named them."""
    return tuple(names) == usual_names(len(names))


def usual_names(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(count))


def take_names(arguments: dict[str, Any]) -> tuple[str, ...] | None:
    """Take `id2label`, `label2id` and `num_labels` out of keyword arguments and return the names that they give.

    Raises:
        ValueError: When they contradict each other.
    """
    id2label, label2id, count = (arguments.pop(name, None) for name in LABEL_ARGUMENTS)
    names = None if id2label is None else _in_order(id2label, "id2label")
    if label2id is not None:
        if not isinstance(label2id, Mapping):
            raise ValueError(f"label2id is {type(label2id).__name__}; it must be a dict of names and class numbers.")
        inverse = _in_order({number: name for name, number in label2id.items()}, "label2id")
        if names not in (None, inverse):
            raise ValueError(f"id2label gives the names {_shorten(names)}, label2id {_shorten(inverse)}; give one.")
        names = inverse
    if count is not None and as_count(count, "num_labels") > MAX_CLASSES:
        raise ValueError(f"num_labels is {shorten(count)}; at most {MAX_CLASSES} classes are read.")
    if count is not None:
        names = usual_names(count) if names is None else names
        if len(names) != count:
            raise ValueError(f"num_labels is {count}, but there are {len(names)} names; give a name for each class.")
    return names


__all__ = [
    "are_usual",
    "check_names",
    "class_numbers",
    "clean",
    "config_names",
    "kind_of",
    "number_labels",
    "plain_label",
    "set_config_names",
    "take_names",
    "usual_names",
]
