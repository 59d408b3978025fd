"""Columns of tables: those that hold inputs and labels, named by a user, and guesses of them for messages."""

import re
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers_tart.checks.arguments import shorten


LABEL = "label"
SUFFIX = "_column"
MOST_NAMES, LONGEST_NAME = 20, 40  # in a message
LIKELY_LABELS = (
    *("labels", "category", "class", "target", "intent", "topic", "sentiment", "tag", "genre", "type", "emotion"),
    *("stance", "rating", "stars", "y"),
)


@dataclass(frozen=True)
class TableOptions:
    """Options of a user for reading tables.

    Attributes:
        columns: names of columns, by the keys that they stand for, such as `"text"`.
        split: name of the split of a dictionary of datasets.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any], inputs: Sequence[str]) -> "TableOptions":
        """Return the options of keyword arguments `text_column` and so on, for inputs and labels, and `split`.

        Raises:
            TypeError: On other arguments, and on values that are not names.
        """
        allowed = [f"{key}{SUFFIX}" for key in (*inputs, LABEL)]
        for name, value in arguments.items():
            if name not in (*allowed, "split"):
                raise TypeError(f"There is no {name} for this model; its columns are given by {', '.join(allowed)}.")
            if value is not None and (not isinstance(value, str) or not value):
                raise TypeError(f"{name} is {shorten(value)} of type {type(value).__name__}; it must be a name.")
        given = {name: value for name, value in arguments.items() if value is not None}
        split = given.pop("split", None)
        return cls({name.removesuffix(SUFFIX): value for name, value in given.items()}, split)


def take_table_arguments(arguments: MutableMapping[str, Any]) -> dict[str, Any]:
    """Remove the arguments for reading tables, `text_column` and the like and `split`, and return them."""
    return {name: arguments.pop(name) for name in list(arguments) if name.endswith(SUFFIX) or name == "split"}


@dataclass(frozen=True)
class Columns:
    """Columns to read from tables and rows.

    Attributes:
        keys: keys of a row of this package, the input first.
        needed: those that a row must have.
        given: columns of a user, by key; they are needed too.
        likely: usual names of columns, by key.
    """

    keys: tuple[str, ...]
    needed: tuple[str, ...]
    given: Mapping[str, str] = field(default_factory=dict)
    likely: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Name of the column of each key."""
        return {key: self.given.get(key, key) for key in self.keys}

    def choose(
        self, found: Collection[str], subject: str, first_row: Callable[[], Mapping[str, Any]] = dict
    ) -> dict[str, str]:
        """Return the column of each key that a table has; a table without any column is empty.

        Args:
            found (`list[str]`):
                Columns of the table.
            subject (`str`):
                Beginning of messages, such as `"The inputs have the columns"`.
            first_row (`Callable`, *optional*):
                Function that returns a row of the table, by which columns are guessed for a message.

        Raises:
            ValueError: When the table has columns, but not all that are needed; and when two keys have one column.
        """
        names = self.names
        missing = [key for key in self.keys if key in (*self.needed, *self.given) and names[key] not in found]
        if found and missing:
            lacking = [names[key] for key in missing]
            remedy = self._remedy(missing, found, first_row())
            raise ValueError(f"{subject} {_list(found)}, without {lacking}; {remedy}")
        chosen = {key: name for key, name in names.items() if name in found}
        for key, name in chosen.items():
            if list(chosen.values()).count(name) > 1 and key not in self.given:
                raise ValueError(
                    f'{subject} {_list(found)}, and "{name}" is read as another column already; give '
                    f"{key}{SUFFIX}=... too."
                )
        return chosen

    def _remedy(self, missing: Sequence[str], found: Collection[str], row: Mapping[str, Any]) -> str:
        guesses = self.guess(missing, found, row)
        named = [f'{key}{SUFFIX}="{guesses[key]}"' if key in guesses else f"{key}{SUFFIX}=..." for key in missing]
        condition = f" if {'that is the column' if len(guesses) == 1 else 'these are the columns'}" if guesses else ""
        return f"give {' and '.join(named)}{condition}, or rename the columns."

    def guess(self, missing: Sequence[str], found: Collection[str], row: Mapping[str, Any]) -> dict[str, str]:
        """Return the likely column of each missing key: by its name, or as the only other one of strings."""
        guesses: dict[str, str] = {}
        for key in missing:
            guess = _likely_column([key, *self.likely.get(key, ())], _free(found, self.names.values(), guesses))
            guesses |= {} if guess is None else {key: guess}
        for key in missing:
            free = _free(found, self.names.values(), guesses)
            strings = [name for name in free if isinstance(row.get(name), str)]
            if key in self.needed and key not in guesses and len(strings) == 1:
                guesses[key] = strings[0]
        return guesses


def _list(names: Collection[str]) -> str:
    """Return names as a list for a message, without those after many."""
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in list(names)[:MOST_NAMES]]
    return f"{shown}" if len(shown) == len(names) else f"{shown} and {len(names) - len(shown)} more"


def _free(found: Collection[str], used: Collection[str], guesses: Mapping[str, str]) -> list[str]:
    return [name for name in found if name not in used and name not in guesses.values()]


def _likely_column(likely: Sequence[str], found: Sequence[str]) -> str | None:
    """Return the first column with a usual name, else with one of these among its words, but for numbers of rows."""
    words = {name: re.findall("[a-z0-9]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower()) for name in found}
    whole = {"_".join(parts): name for name, parts in reversed(words.items())}
    named = (whole[name] for name in likely if name in whole)
    partly = (name for each in likely for name, parts in words.items() if each in parts and "id" not in parts)
    return next(named, None) or next(partly, None)
