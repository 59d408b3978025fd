"""Labeled examples: a list of rows, a dict of columns, or a table; images and audio are read when embedded."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from transformers.utils import logging

from transformers_tart.inputs.candidates import match_candidates, parse_candidates
from transformers_tart.inputs.columns import LABEL, Columns, TableOptions
from transformers_tart.inputs.containers import (
    PAIR,
    can_iterate,
    choose_columns,
    columns_of_examples,
    is_missing,
    iterate,
    read_chosen,
    resolve_table,
)
from transformers_tart.inputs.label_lists import are_lists, flatten_lists, group_numbers
from transformers_tart.inputs.labels import STRINGS, kind_of, number_labels, plain_label
from transformers_tart.inputs.modality import TEXT, Modality
from transformers_tart.inputs.more_labels import number_more
from transformers_tart.inputs.tables import FileTable, beside
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
        label_kind: kind of the labels that were given, as in [`kind_of`].
        weights: k positive weights, `None` for 1 each.
        label_lists: k lists of indices, in place of `labels`, of examples that have several labels or none.
    """

    inputs: list[Any]
    labels: list[int]
    label_names: tuple[str, ...]
    label_kind: str = STRINGS
    weights: list[float] | None = None
    label_lists: list[list[int]] | None = None

    def label_sets(self) -> list[frozenset[str]]:
        """Return the names of the labels of each example."""
        lists = [[label] for label in self.labels] if self.label_lists is None else self.label_lists
        return [frozenset(self.label_names[label] for label in own) for own in lists]


Row: TypeAlias = Mapping[str, Any] | tuple[Any, Any]
RawExamples: TypeAlias = Sequence[Row] | Mapping[str, Sequence[Any]] | TableOfExamples | Examples | str | os.PathLike


def _forms(key: str) -> str:
    columns = f'the columns "{key}" and "label"'
    return (
        f'a list of {{"{key}": ..., "label": ...}} or ({key}, label), a dict of {columns}, a table or dataset with '
        "both, or the path of one"
    )


def parse_examples(
    examples: RawExamples,
    modality: Modality = TEXT,
    chosen_names: Sequence[str] | None = None,
    candidate_labels: str | Sequence[str] | None = None,
    options: TableOptions | None = None,
    known_names: tuple[str, ...] | None = None,
) -> Examples:
    """Check labeled examples and number their labels.

    Args:
        examples (`list[dict]`, `list[tuple]`, `dict[str, list]`, a table, a dataset, `str` or `Path`):
            Rows or columns of `text`, `label` and, for text pairs, `text_pair`; or of `image` or `audio`, and `label`.
            Other columns are ignored. Tuples are an input and its label. Tables are those of pandas, polars, Arrow
            and `datasets`, streams too, and files of csv, tsv, json, jsonl or parquet; of a `DatasetDict`, `"train"`
            is read unless a split is given. Labels are strings, integers, whole floats or booleans, or a list of
            these for each example. The order of the classes is the `ClassLabel` feature's, else sorted.
            [`Examples`] are taken as they are.
        modality (`Modality`, *optional*, defaults to `TEXT`):
            The modality of the inputs.
        chosen_names (`list[str]`, *optional*):
            Names that a user gave the classes by `config.id2label`, in order.
        candidate_labels (`str` or `list[str]`, *optional*):
            Names of the classes, in order; a class may be without an example.
        known_names (`tuple[str]`, *optional*):
            Classes of the support set to which the examples are added, which may all be of one class.
        options ([`TableOptions`], *optional*):
            Names of the columns, and the split of a dictionary of datasets.

    Raises:
        ValueError: On no examples, absent columns, columns of unequal lengths, missing labels, a single class
            without candidate labels, or a label that is not among the candidate labels.
        TypeError: On texts that are not strings, columns that are single values and labels of other or mixed kinds.
    """
    key = modality.name
    if isinstance(examples, Examples):
        return examples
    if examples is None:
        raise TypeError(f"The examples are None; give {_forms(key)}, or candidate_labels for none.")
    columns, class_names = _columns(examples, modality, options or TableOptions())
    if not columns:
        raise ValueError(f"There are no examples; give {_forms(key)}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns of the examples have unequal lengths: {lengths}.")
    if lengths[key] == 0:
        raise ValueError(f"There are no examples; give {_forms(key)}.")
    items = _texts(columns) if modality.is_tokenized else columns[key]
    given = (known_names, class_names, chosen_names, candidate_labels)
    if are_lists(columns[LABEL]):
        flat, places = flatten_lists(columns[LABEL])
        numbers, label_names, kind = _number(flat, places, *given)
        lists = group_numbers(numbers, places, len(items))
        if modality.is_tokenized:
            _warn_about_texts(items, list(map(tuple, lists)))
        return Examples(items, [], label_names, kind, label_lists=lists)
    labels, label_names, kind = _number(columns[LABEL], range(len(items)), *given)
    if len(set(labels)) < 2 and known_names is None and candidate_labels is None:
        raise ValueError(
            f"All {len(labels)} examples have one label; a classifier needs examples of at least two classes."
        )
    if modality.is_tokenized:
        _warn_about_texts(items, labels)
    absent = len(label_names) - len(set(labels))
    if absent and candidate_labels is None and known_names is None:
        logger.warning(f"{absent} of {len(label_names)} classes have no example, so they will hardly be predicted.")
    return Examples(items, labels, label_names, kind)


def _number(
    labels: list[Any], places: Sequence[int], known_names: Any, class_names: Any, chosen_names: Any, candidates: Any
) -> tuple[list[int], tuple[str, ...], str]:
    """Return class numbers, names of the classes and kind of the labels; the arguments are as in `parse_examples`."""
    if not labels:
        if known_names is None:
            raise ValueError("All examples have empty lists of labels; a classifier needs labels.")
        return [], known_names, STRINGS
    kind = STRINGS
    if known_names is not None:
        numbers, names = number_more(labels, known_names, class_names, chosen_names, places)
    elif candidates is None:
        numbers, names = number_labels(labels, class_names, chosen_names, places)
    else:
        parsed = parse_candidates(candidates, chosen_names)
        numbers, names = match_candidates(*number_labels(labels, class_names, places=places), parsed, places)
    if known_names is not None or (class_names is None and chosen_names is None and candidates is None):
        kind = kind_of(plain_label(labels[0]), f"example {places[0]}")
    return numbers, names, kind


def _texts(columns: Mapping[str, list]) -> list[Text]:
    texts = columns["text"]
    pairs = columns.get(PAIR) or [None] * len(texts)
    return [
        parse_text(text if is_missing(pair) else {"text": text, PAIR: pair}, f"The text of example {i}")
        for i, (text, pair) in enumerate(zip(texts, pairs, strict=True))
    ]


def _columns(
    examples: Any, modality: Modality, options: TableOptions
) -> tuple[dict[str, list[Any]], list[str] | None]:
    """Return the columns of the examples by key, and the class names of a `ClassLabel` feature."""
    key, subject = modality.name, "The examples"
    columns = columns_of_examples(modality, options)
    table = resolve_table(examples, subject, options.split, "train")
    chosen = choose_columns(table, columns, f"{subject} have the columns")
    if chosen is None:
        return _rows(table, key, columns), None
    values = read_chosen(table, chosen, " of the examples")
    if isinstance(table, FileTable) and modality.suffixes and values:
        values[key] = [beside(table.path, value) for value in values[key]]
    features = getattr(table, "features", None)
    feature = features.get(chosen.get(LABEL)) if isinstance(features, Mapping) else None
    feature = getattr(feature, "feature", feature)  # of a list of them
    return values, getattr(feature, "names", None)


def _rows(examples: Any, key: str, columns: Columns) -> dict[str, list[Any]]:
    """Return the columns of rows, each a mapping or a tuple of an input and its label."""
    if isinstance(examples, (str, bytes)) or not can_iterate(examples):
        raise TypeError(f"The examples are {type(examples).__name__}; give {_forms(key)}.")
    rows = []
    for i, row in enumerate(iterate(examples)):
        if isinstance(row, tuple) and len(row) == 2:
            rows.append({key: row[0], LABEL: row[1]})
        elif isinstance(row, Mapping):
            chosen = columns.choose([str(name) for name in row], f"Example {i} has the keys", partial(dict, row))
            rows.append({name: row[column] for name, column in chosen.items()})
        else:
            raise TypeError(f"Example {i} is {type(row).__name__}; give {_forms(key)}.")
    return {name: [row.get(name) for row in rows] for name in columns.keys if any(name in row for row in rows)}


def _warn_about_texts(texts: list[Text], labels: Sequence[Any]) -> None:
    """Log how many texts are probably not meant as they are; never a text itself."""
    if blank := sum(not "".join(text).strip() for text in texts):
        logger.warning(f"{blank} of {len(texts)} examples have a blank text.")
    labels_per_text = Counter(text for text, _ in set(zip(texts, labels, strict=True)))
    if contradicting := sum(count > 1 for count in labels_per_text.values()):
        logger.warning(f"{contradicting} texts of the examples occur with more than one label.")
