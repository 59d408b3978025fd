"""Labeled examples: a list of rows, a dict of columns, or a table; images and audio are read when embedded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from transformers.utils import logging

from transformers_tart.inputs.candidates import match_candidates, parse_candidates
from transformers_tart.inputs.containers import (
    PAIR,
    as_list,
    can_iterate,
    choose_columns,
    dataset_columns,
    is_dataset,
    is_missing,
    iterate,
    table_columns,
)
from transformers_tart.inputs.labels import number_labels
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.inputs.texts import Text, parse_text


logger = logging.get_logger(__name__)


class TableOfExamples(Protocol):
    """The part of a `datasets.Dataset` that examples need."""

    features: Any
    column_names: list[str]

    def select_columns(self, column_names: list[str]) -> Any:
        """Return the rows with these columns alone."""


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        inputs: k texts or (text, text_pair) tuples; or images or audio as they were given.
        labels: k indices into `label_names`.
        label_names: names of the classes, in order.
        weights: k positive weights, `None` for 1 each.
    """

    inputs: list[Any]
    labels: list[int]
    label_names: tuple[str, ...]
    weights: list[float] | None = None


RawExamples: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | TableOfExamples | Examples


def _forms(key: str) -> str:
    columns = f'the columns "{key}" and "label"'
    return f'a list of {{"{key}": ..., "label": ...}}, a dict of {columns}, or a datasets.Dataset with both'


def parse_examples(
    examples: RawExamples,
    modality: Modality = TEXT,
    chosen_names: Sequence[str] | None = None,
    candidate_labels: str | Sequence[str] | None = None,
) -> Examples:
    """Check labeled examples and number their labels.

    Args:
        examples (`list[dict]`, `dict[str, list]`, `datasets.Dataset` or a table of pandas, polars or Arrow):
            Rows or columns of `text`, `label` and, for text pairs, `text_pair`; or of `image` or `audio`, and `label`.
            Labels are strings, integers, whole floats or booleans. The order of the classes is the `ClassLabel`
            feature's, else sorted. [`Examples`] are taken as they are.
        modality (`Modality`, *optional*, defaults to `TEXT`):
            The modality of the inputs.
        chosen_names (`list[str]`, *optional*):
            Names that a user gave the classes by `config.id2label`, in order.
        candidate_labels (`str` or `list[str]`, *optional*):
            Names of the classes, in order; a class may be without an example.

    Raises:
        ValueError: On no examples, unknown keys, columns of unequal lengths, missing labels, a single class, or
            a label that is not among the candidate labels.
        TypeError: On texts that are not strings, columns that are single values and labels of other or mixed kinds.
    """
    key = modality.name
    if isinstance(examples, Examples):
        return examples
    if examples is None:
        raise TypeError(f"The examples are None; give {_forms(key)}, or candidate_labels for none.")
    columns, class_names = _columns(examples, modality)
    missing = [name for name in (key, "label") if name not in columns]
    if missing:
        raise ValueError(f"The examples have the keys {sorted(columns)}, without {missing}; give {_forms(key)}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns of the examples have unequal lengths: {lengths}.")
    if lengths[key] == 0:
        raise ValueError(f"There are no examples; give {_forms(key)}.")
    items = _texts(columns) if modality.is_tokenized else columns[key]
    if candidate_labels is None:
        labels, label_names = number_labels(columns["label"], class_names, chosen_names)
    else:
        candidates = parse_candidates(candidate_labels, chosen_names)
        labels, label_names = match_candidates(*number_labels(columns["label"], class_names), candidates)
    if len(set(labels)) < 2:
        raise ValueError(
            f"All {len(labels)} examples have one label; a classifier needs examples of at least two classes."
        )
    if modality.is_tokenized:
        _warn_about_texts(items, labels)
    absent = len(label_names) - len(set(labels))
    if absent and candidate_labels is None:
        logger.warning(f"{absent} of {len(label_names)} classes have no example, so they will hardly be predicted.")
    return Examples(items, labels, label_names)


def _texts(columns: Mapping[str, list]) -> list[Text]:
    texts = columns["text"]
    pairs = columns.get(PAIR) or [None] * len(texts)
    return [
        parse_text(text if is_missing(pair) else {"text": text, PAIR: pair}, f"The text of example {i}")
        for i, (text, pair) in enumerate(zip(texts, pairs, strict=True))
    ]


def _columns(examples: Any, modality: Modality) -> tuple[dict[str, list], list[str] | None]:
    """Return the columns of the examples, and the class names of a `ClassLabel` feature."""
    key, keys, subject = modality.name, (*modality.columns, "label"), "The examples"
    needed = (key, "label")
    if is_dataset(examples, subject):
        names = getattr((examples.features or {}).get("label"), "names", None)
        chosen = choose_columns(given := dataset_columns(examples), keys, needed, subject)
        rows = list(examples.select_columns(chosen)) if given else []
        return {name: [row[name] for row in rows] for name in chosen}, names
    columns: Mapping[Any, Any] | None = table_columns(examples)
    if columns is not None:
        columns = {name: columns[name] for name in choose_columns(list(columns), keys, needed, subject)}
    elif isinstance(examples, Mapping):
        _check_keys(columns := examples, keys, "the examples")
    if columns is not None:
        return {str(name): as_list(columns[name], f'The column "{name}" of the examples') for name in columns}, None
    if isinstance(examples, (str, bytes)) or not can_iterate(examples):
        raise TypeError(f"The examples are {type(examples).__name__}; give {_forms(key)}.")
    rows = list(iterate(examples))
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"Example {i} is {type(row).__name__}; give {_forms(key)}.")
        _check_keys(row, keys, f"example {i}")
        if key not in row or "label" not in row:
            raise ValueError(f'Example {i} has the keys {sorted(row)}; it must have "{key}" and "label".')
    return {name: [row.get(name) for row in rows] for name in keys if not rows or any(name in r for r in rows)}, None


def _check_keys(row: Mapping, keys: Sequence[str], where: str) -> None:
    if unknown := sorted(str(name) for name in row if name not in keys):
        raise ValueError(f"Unknown keys {unknown} in {where}; rename or drop them: the keys are {list(keys)}.")


def _warn_about_texts(texts: list[Text], labels: list[int]) -> None:
    """Log how many texts are probably not meant as they are; never a text itself."""
    if blank := sum(not "".join(text).strip() for text in texts):
        logger.warning(f"{blank} of {len(texts)} examples have a blank text.")
    labels_per_text = Counter(text for text, _ in set(zip(texts, labels, strict=True)))
    if contradicting := sum(count > 1 for count in labels_per_text.values()):
        logger.warning(f"{contradicting} texts of the examples occur with more than one label.")
