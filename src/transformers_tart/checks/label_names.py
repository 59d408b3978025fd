"""Names of classes: `id2label`, `label2id` and `num_labels`, and checks of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from transformers import PreTrainedConfig

from transformers_tart.checks.arguments import as_count, shorten, well_formed
from transformers_tart.checks.bounds import MAX_CLASSES, MAX_LABEL_NAME


MULTI_LABEL: Final = "multi_label_classification"


def check_label_names(field: str, names: Any, may_be_blank: bool = True) -> None:
    """Raise a ValueError that names a field, unless it holds label names: strings, each once, and not too many."""
    if not isinstance(names, Collection) or isinstance(names, str) or len(names) > MAX_CLASSES:
        raise ValueError(f"{field} must hold at most {MAX_CLASSES} names; got {shorten(names)}.")
    kind = f"a string of at most {MAX_LABEL_NAME} characters" + ("" if may_be_blank else " that is not blank")
    for i, name in enumerate(names):
        if not isinstance(name, str) or len(name) > MAX_LABEL_NAME or not (may_be_blank or name.strip()):
            raise ValueError(f"{field} names class {i} {shorten(name)}; a name must be {kind}.")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"{field} names two classes {shorten(twice)}; each class needs a name of its own.")


def check_names(names: Iterable[Any], where: str) -> tuple[str, ...]:
    """Return the names of classes as a tuple.

    Raises:
        ValueError: On names that are not strings, blank or not distinct.
    """
    found = tuple(names)
    check_label_names(where, found, may_be_blank=False)
    return tuple(well_formed(name) for name in found)


def class_numbers(id2label: Any, where: str) -> dict[int, Any]:
    """Return names by class number; in JSON the numbers are strings.

    Raises:
        ValueError: When this is not a dict of numbers.
    """
    if not isinstance(id2label, Mapping):
        raise ValueError(f"{where} is {shorten(id2label)}; it must be a dict of class numbers and names.")
    try:
        return {int(number): name for number, name in id2label.items()}
    except (TypeError, ValueError) as err:
        raise ValueError(f"The keys of {where} are {shorten(list(id2label))}; they must be class numbers.") from err


def _in_order(id2label: Any, where: str) -> tuple[str, ...]:
    named = class_numbers(id2label, where)
    if sorted(named) != list(range(len(named))):
        raise ValueError(f"The keys of {where} are {shorten(sorted(named))}; they must be 0 to {len(named) - 1}.")
    return check_names([named[i] for i in range(len(named))], where)


def config_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the names of the classes in `config.id2label`, in order.

    Raises:
        ValueError: When it does not name the classes 0 to n - 1, each once.
    """
    return _in_order(config.id2label, "config.id2label")


def set_config_names(config: PreTrainedConfig, names: Sequence[str]) -> None:
    """Name the classes in a config."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}


def set_problem_type(config: PreTrainedConfig, is_multi_label: bool) -> None:
    """Set whether pipelines of transformers take the sigmoid of each logit; other types of problems stay."""
    if is_multi_label or config.problem_type == MULTI_LABEL:
        config.problem_type = MULTI_LABEL if is_multi_label else None


def usual_names(count: int) -> tuple[str, ...]:
    """Return the names that transformers gives classes without a name."""
    return tuple(f"LABEL_{i}" for i in range(count))


def are_usual(names: Sequence[str]) -> bool:
    """Return whether names are those that transformers gives classes without a name."""
    return tuple(names) == usual_names(len(names))


def take_names(arguments: dict[str, Any]) -> tuple[str, ...] | None:
    """Take `id2label`, `label2id` and `num_labels` out of keyword arguments and return the names that they give.

    Raises:
        ValueError: When they contradict each other.
    """
    id2label, label2id, count = (arguments.pop(name, None) for name in ("id2label", "label2id", "num_labels"))
    names = None if id2label is None else _in_order(id2label, "id2label")
    if label2id is not None:
        if not isinstance(label2id, Mapping):
            raise ValueError(f"label2id is {shorten(label2id)}; it must be a dict of names and class numbers.")
        inverse = _in_order({number: name for name, number in label2id.items()}, "label2id")
        if names not in (None, inverse):
            raise ValueError(
                f"id2label gives the names {shorten(names)}, label2id {shorten(inverse)}; give one of the two."
            )
        names = inverse
    if count is not None:
        if as_count(count, "num_labels") > MAX_CLASSES:
            raise ValueError(f"num_labels is {shorten(count)}; it must be at most {MAX_CLASSES}.")
        names = usual_names(count) if names is None else names
        if len(names) != count:
            raise ValueError(f"num_labels is {count}, but there are {len(names)} names; give a name for each class.")
    return names
