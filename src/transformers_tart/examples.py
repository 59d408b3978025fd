"""Labelled examples as users write them: a list of rows, a dict of columns, or a `datasets.Dataset`.

Of images and audio only the form is checked here: what they hold is read when they are embedded.
"""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from transformers.utils import logging


logger = logging.get_logger(__name__)


class TableOfExamples(Protocol):
    """What is read of a `datasets.Dataset`."""

    features: Any
    column_names: list[str]

    def select_columns(self, column_names: list[str]) -> Any:
        """Rows of these columns alone."""


Text: TypeAlias = str | tuple[str, str]
RawExamples: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | TableOfExamples

TEXT = "text"


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        texts: k texts, or (text, text_pair) tuples; or images or audio as they were given.
        labels: k indices into `label_names`.
        label_names: names of the classes, in order.
    """

    texts: list[Any]
    labels: list[int]
    label_names: tuple[str, ...]


def forms(key: str) -> str:
    """What users may give, for messages."""
    columns = f'the columns "{key}" and "label"'
    return f'a list of {{"{key}": ..., "label": ...}}, a dict of {columns}, or a datasets.Dataset with both'


def _keys(key: str) -> tuple[str, ...]:
    return (TEXT, "text_pair", "label") if key == TEXT else (key, "label")


def parse_text(item: object, where: str) -> Text:
    """One text or text pair from a string or `{"text", "text_pair"}`.

    Raises:
        TypeError: When a text is not a string. The message names the place, never the content.
        ValueError: When a dict has other keys.
    """
    if isinstance(item, Mapping):
        unknown = sorted(str(key) for key in set(item) - {"text", "text_pair"})
        if unknown or "text" not in item:
            raise ValueError(
                f'{where} has the keys {sorted(map(str, item))}; a dict must have "text" and may have "text_pair".'
            )
        text, pair = _string(item["text"], where), item.get("text_pair")
        return text if pair is None else (text, _string(pair, f"The text_pair of {where}"))
    return _string(item, where)


def _string(item: object, where: str) -> str:
    if not isinstance(item, str):
        raise TypeError(f"{where} is {type(item).__name__}; a text must be a string.")
    return item


def parse_examples(examples: RawExamples, key: str = TEXT) -> Examples:
    """Check labelled examples and number their labels.

    Args:
        examples (`list[dict]`, `dict[str, list]` or `datasets.Dataset`):
            Rows or columns of `text`, `label` and, for text pairs, `text_pair`; or of `image` or `audio`, and `label`.
            Labels are strings or integers. The order of the classes is the `ClassLabel` feature's, else sorted.
        key (`str`, *optional*, defaults to `"text"`):
            `"text"`, `"image"` or `"audio"`.

    Raises:
        ValueError: On no examples, unknown keys, columns of unequal lengths, missing labels or a single class.
        TypeError: On texts that are not strings and labels that are neither strings nor integers.
    """
    columns, class_names = _columns(examples, key)
    missing = [name for name in (key, "label") if name not in columns]
    if missing:
        raise ValueError(f"The examples have the keys {sorted(columns)}, without {missing}; give {forms(key)}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns of the examples have unequal lengths: {lengths}.")
    if lengths[key] == 0:
        raise ValueError(f"There are no examples; give {forms(key)}.")
    items = _texts(columns) if key == TEXT else columns[key]
    labels, label_names = _number_labels(columns["label"], class_names)
    if len(set(labels)) < 2:
        raise ValueError(
            f"All {len(labels)} examples have one label; a classifier needs examples of at least two classes."
        )
    if key == TEXT:
        _warn_about_texts(items, labels)
    absent = len(label_names) - len(set(labels))
    if absent:
        logger.warning(f"{absent} of {len(label_names)} classes have no example, so they will hardly be predicted.")
    return Examples(items, labels, label_names)


def _texts(columns: Mapping[str, list]) -> list[Text]:
    pairs = columns.get("text_pair") or [None] * len(columns[TEXT])
    return [
        parse_text(text if pair is None else {"text": text, "text_pair": pair}, f"The text of example {i}")
        for i, (text, pair) in enumerate(zip(columns[TEXT], pairs, strict=True))
    ]


def _columns(examples: Any, key: str) -> tuple[dict[str, list], list[str] | None]:
    """The columns of the examples, and the class names where a `ClassLabel` feature gives them."""
    keys = _keys(key)
    if isinstance(getattr(examples, "column_names", None), Mapping):
        raise ValueError("The examples are a dictionary of dataset splits; choose one, for example examples['train'].")
    if hasattr(examples, "features") and hasattr(examples, "column_names"):
        names = getattr((examples.features or {}).get("label"), "names", None)
        given = examples.column_names or list(next(iter(examples), {}))  # a stream may not know its columns
        rows = list(examples.select_columns([name for name in keys if name in given]))
        return {name: [row[name] for row in rows] for name in keys if name in given}, names
    if isinstance(examples, Mapping):
        _check_keys(examples, keys, "the examples")
        return {str(name): list(column) for name, column in examples.items()}, None
    if isinstance(examples, str) or not isinstance(examples, Sequence):
        raise TypeError(f"The examples are {type(examples).__name__}; give {forms(key)}.")
    for i, row in enumerate(examples):
        if not isinstance(row, Mapping):
            raise TypeError(f"Example {i} is {type(row).__name__}; give {forms(key)}.")
        _check_keys(row, keys, f"example {i}")
        if key not in row or "label" not in row:
            raise ValueError(f'Example {i} has the keys {sorted(row)}; it must have "{key}" and "label".')
    return {
        name: [row.get(name) for row in examples] for name in keys if not examples or any(name in r for r in examples)
    }, None


def _check_keys(row: Mapping, keys: Sequence[str], where: str) -> None:
    unknown = sorted(str(name) for name in row if name not in keys)
    if unknown:
        raise ValueError(f"Unknown keys {unknown} in {where}; the keys are {list(keys)}.")


def _number_labels(labels: list, class_names: list[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Indices of the labels, and the class names in order."""
    labels = [label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label for label in labels]
    for i, label in enumerate(labels):
        if label is None or label != label:
            raise ValueError(f"The label of example {i} is missing ({label}); leave the example out or label it.")
        if isinstance(label, bool) or not isinstance(label, (str, numbers.Integral)):
            raise TypeError(f"The label of example {i} is {type(label).__name__}; labels are strings or integers.")
    if len({isinstance(label, str) for label in labels}) > 1:
        raise TypeError("Some labels are strings and some are integers; use one kind.")
    if class_names is not None and not isinstance(labels[0], str):
        unlabelled = [i for i, label in enumerate(labels) if not 0 <= label < len(class_names)]
        if unlabelled:
            raise ValueError(
                f"The label of example {unlabelled[0]} is {labels[unlabelled[0]]}, outside the {len(class_names)} "
                "names of its ClassLabel feature."
            )
        return [int(label) for label in labels], tuple(class_names)
    ordered = sorted(set(labels))
    index = {label: i for i, label in enumerate(ordered)}
    return [index[label] for label in labels], tuple(str(label) for label in ordered)


def _warn_about_texts(texts: list[Text], labels: list[int]) -> None:
    """Say what is allowed but probably not meant; counts only, never a text."""
    blank = sum(not "".join(text).strip() for text in texts)
    if blank:
        logger.warning(f"{blank} of {len(texts)} examples have a blank text.")
    seen: dict[Text, set[int]] = {}
    for text, label in zip(texts, labels, strict=True):
        seen.setdefault(text, set()).add(label)
    contradicting = sum(len(found) > 1 for found in seen.values())
    if contradicting:
        logger.warning(f"{contradicting} texts of the examples occur with more than one label.")


__all__ = ["Examples", "RawExamples", "Text", "parse_examples", "parse_text"]
