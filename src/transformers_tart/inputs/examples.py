"""Labeled examples as users write them: a list of rows, a dict of columns, or a `datasets.Dataset`.

Of images and audio only the form is checked here: what they hold is read when they are embedded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from transformers.utils import logging

from transformers_tart.inputs.containers import (
    as_list,
    can_iterate,
    dataset_columns,
    is_dataset,
    is_missing,
    iterate,
    refuse_splits,
    table_columns,
)
from transformers_tart.inputs.labels import number_labels
from transformers_tart.inputs.texts import Text, parse_text


logger = logging.get_logger(__name__)


class TableOfExamples(Protocol):
    """What is read of a `datasets.Dataset`."""

    features: Any
    column_names: list[str]

    def select_columns(self, column_names: list[str]) -> Any:
        """Rows of these columns alone."""


RawExamples: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | TableOfExamples

TEXT = "text"


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        inputs: k texts or (text, text_pair) tuples; or images or audio as they were given.
        labels: k indices into `label_names`.
        label_names: names of the classes, in order.
    """

    inputs: list[Any]
    labels: list[int]
    label_names: tuple[str, ...]


def forms(key: str) -> str:
    """What users may give, for messages."""
    columns = f'the columns "{key}" and "label"'
    return f'a list of {{"{key}": ..., "label": ...}}, a dict of {columns}, or a datasets.Dataset with both'


def _keys(key: str) -> tuple[str, ...]:
    return (TEXT, "text_pair", "label") if key == TEXT else (key, "label")


def parse_examples(examples: RawExamples, key: str = TEXT, chosen_names: Sequence[str] | None = None) -> Examples:
    """Check labeled examples and number their labels.

    Args:
        examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or a table of pandas, polars or Arrow):
            Rows or columns of `text`, `label` and, for text pairs, `text_pair`; or of `image` or `audio`, and `label`.
            Labels are strings, integers, whole floats or booleans. The order of the classes is the `ClassLabel`
            feature's, else sorted.
        key (`str`, *optional*, defaults to `"text"`):
            `"text"`, `"image"` or `"audio"`.
        chosen_names (`list[str]`, *optional*):
            Names that a user gave the classes by `config.id2label`, in order.

    Raises:
        ValueError: On no examples, unknown keys, columns of unequal lengths, missing labels or a single class.
        TypeError: On texts that are not strings, columns that are single values and labels of other or mixed kinds.
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
    labels, label_names = number_labels(columns["label"], class_names, chosen_names)
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
        parse_text(text if is_missing(pair) else {"text": text, "text_pair": pair}, f"The text of example {i}")
        for i, (text, pair) in enumerate(zip(columns[TEXT], pairs, strict=True))
    ]


def _columns(examples: Any, key: str) -> tuple[dict[str, list], list[str] | None]:
    """The columns of the examples, and the class names where a `ClassLabel` feature gives them."""
    keys = _keys(key)
    refuse_splits(examples, "The examples")
    if is_dataset(examples):
        names = getattr((examples.features or {}).get("label"), "names", None)
        given = dataset_columns(examples)
        chosen = _choose_columns(given, keys)
        rows = list(examples.select_columns(chosen)) if given else []
        return {name: [row[name] for row in rows] for name in chosen}, names
    table = table_columns(examples)
    if table is not None:
        return {name: _column(table[name], name) for name in _choose_columns(list(table), keys)}, None
    if isinstance(examples, Mapping):
        _check_keys(examples, keys, "the examples")
        return {str(name): _column(column, name) for name, column in examples.items()}, None
    if isinstance(examples, (str, bytes)) or not can_iterate(examples):
        raise TypeError(f"The examples are {type(examples).__name__}; give {forms(key)}.")
    return _columns_of_rows(list(iterate(examples)), key), None


def _choose_columns(given: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The columns that are read of a table, which may have others."""
    missing = [name for name in (keys[0], "label") if name not in given]
    if given and missing:
        raise ValueError(
            f"The examples have the columns {list(given)}, without {missing}; rename the columns, or give "
            f"{forms(keys[0])}."
        )
    return [name for name in keys if name in given]


def _column(column: Any, name: Any) -> list[Any]:
    return as_list(column, f'The column "{name}" of the examples')


def _columns_of_rows(rows: list[Any], key: str) -> dict[str, list]:
    keys = _keys(key)
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"Example {i} is {type(row).__name__}; give {forms(key)}.")
        _check_keys(row, keys, f"example {i}")
        if key not in row or "label" not in row:
            raise ValueError(f'Example {i} has the keys {sorted(row)}; it must have "{key}" and "label".')
    return {name: [row.get(name) for row in rows] for name in keys if not rows or any(name in r for r in rows)}


def _check_keys(row: Mapping, keys: Sequence[str], where: str) -> None:
    unknown = sorted(str(name) for name in row if name not in keys)
    if unknown:
        raise ValueError(f"Unknown keys {unknown} in {where}; rename or drop them: the keys are {list(keys)}.")


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
