"""Texts of labels: names in natural case, descriptions, and templates around them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers_tart.checks.arguments import shorten, well_formed


SEPARATORS = re.compile(r"[_\-.\s]+")
CAPITAL_INSIDE = re.compile(r"(?<=[a-z]{2})(?=[A-Z](?:[a-z]|$))")  # of "CardNotWorking", and not of "iPhone"
# A number or a letter, alone or behind a word for a class.
PLACEHOLDER = re.compile(
    r"(?:labels?|class(?:es)?|category|cat|type|group|cluster|topic|tag|target|id|option|choice|answer|item)"
    r" ?(?:\d+|(?<= )(?:[a-z]|[ivx]+))|labels?|class|[a-z] ?\d*|[ivx]+",
    re.IGNORECASE,
)


def readable(name: str) -> str | None:
    """Return the name of a class as words, in its own case; `None` for one without meaning, such as `LABEL_1`."""
    words = SEPARATORS.sub(" ", CAPITAL_INSIDE.sub(" ", name)).strip()
    if not any(letter.isalpha() for letter in words) or PLACEHOLDER.fullmatch(words):
        return None
    return words


def label_texts(names: Sequence[str], descriptions: Mapping[str, str] | None = None) -> tuple[str | None, ...]:
    """Return the text of each class: its description if it has one, else its name in words, else `None`."""
    found = dict(descriptions or {})
    return tuple(found.get(name) or readable(name) for name in names)


def check_descriptions(descriptions: Any, names: Sequence[str]) -> dict[str, str]:
    """Return descriptions of classes, by their labels or names, as a dict of texts by their names.

    Raises:
        TypeError: When they are no mapping, or one is no string.
        ValueError: On a name that is none of the classes, or a blank description.
    """
    if not isinstance(descriptions, Mapping):
        raise TypeError(
            f"label_descriptions is {type(descriptions).__name__}; give a dict of label names and texts, such as "
            '{"spam": "unwanted advertising"}.'
        )
    if unknown := [name for name in descriptions if str(name) not in names]:
        raise ValueError(
            f"label_descriptions names {shorten(unknown)}, which are none of the labels {shorten(list(names))}; "
            "correct the names."
        )
    for name, text in descriptions.items():
        if not isinstance(text, str):
            raise TypeError(f"The description of {shorten(name)} is {type(text).__name__}; it must be a string.")
        if not text.strip():
            raise ValueError(f"The description of {shorten(name)} is blank; describe the class, or leave it out.")
    return {str(name): well_formed(text) for name, text in descriptions.items()}


__all__ = ["check_descriptions", "label_texts", "readable"]
