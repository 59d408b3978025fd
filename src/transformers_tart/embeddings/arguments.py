"""Checks of what the functions that embed texts are given."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from transformers import PreTrainedModel

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.configuration_tart import POOLINGS
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.inputs.containers import can_iterate, unpack
from transformers_tart.inputs.examples import Text, parse_text
from transformers_tart.inputs.labels import plain_label
from transformers_tart.inputs.modality import TEXT
from transformers_tart.inputs.tokenization import check_tokenizer


def check_models(backbone: Any, tokenizer: Any, cache: Any = None) -> None:
    """Check the kinds of a backbone, of its tokenizer and of a cache.

    Raises:
        TypeError: When one of them is something else.
    """
    if not isinstance(backbone, PreTrainedModel):
        raise TypeError(f"backbone is {shorten(backbone)} of type {type(backbone).__name__}; give a PreTrainedModel.")
    check_tokenizer(tokenizer)
    if cache is not None and not isinstance(cache, EmbeddingCache):
        raise TypeError(f"cache is {shorten(cache)} of type {type(cache).__name__}; give an EmbeddingCache, or None.")


def check_texts(texts: Any, name: str) -> list[Text]:
    """Return texts and (text, text_pair) tuples as a list, without lone surrogates; of a table its column `text`.

    Raises:
        TypeError: When they are not many, or one is something else.
        ValueError: When there are none.
    """
    items = _as_list(unpack(texts, TEXT), name)
    if not items:
        raise ValueError(f"{name} is empty: there are no texts to embed.")
    return [_check_text(item, f"{name}[{i}]") for i, item in enumerate(items)]


def _check_text(item: Any, where: str) -> Text:
    if isinstance(item, tuple) and len(item) == 2:
        item = {"text": item[0], "text_pair": item[1]}
    return parse_text(item, where)


def check_class_numbers(labels: Any, name: str) -> list[int]:
    """Return class numbers as Python integers.

    Raises:
        TypeError: When they are not many integers.
        ValueError: When one is negative.
    """
    numbers = [plain_label(label) for label in _as_list(labels, name)]
    for i, number in enumerate(numbers):
        if not isinstance(number, Integral):
            raise TypeError(f"{name}[{i}] is {shorten(number)}; labels must be integers, the numbers of classes.")
        if not 0 <= int(number) < 2**31:
            raise ValueError(f"{name}[{i}] is {shorten(int(number))}; classes are numbered from 0.")
    return [int(number) for number in numbers]


def _as_list(values: Any, name: str) -> list[Any]:
    if isinstance(values, (str, bytes, bytearray, Mapping, set, frozenset)) or not can_iterate(values):
        raise TypeError(f"{name} is {shorten(values)} of type {type(values).__name__}; give a list.")
    try:
        return list(values)
    except TypeError as err:
        raise TypeError(f"{name} is of type {type(values).__name__}; give a list.") from err


def check_names(names: Any, labels: Iterable[int]) -> list[str]:
    """Return what a prompt calls the classes: their numbers where no names are given.

    Raises:
        TypeError, ValueError: When they are not many strings, or fewer than classes.
    """
    count = max(labels) + 1
    if names is None:
        return [str(i) for i in range(count)]
    found = _as_list(names, "label_names")
    if len(found) < count or not all(isinstance(name, str) for name in found):
        raise ValueError(f"label_names is {shorten(found)}; give a string for each of the {count} classes.")
    return found


def check_reading(pooling: Any, layers: Any) -> int | str:
    """Check a pooling, and return layers as an index or `"all"`.

    Raises:
        ValueError: When they are something else.
    """
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        raise ValueError(f"pooling is {shorten(pooling)}; it must be one of {POOLINGS}.")
    if isinstance(layers, str) and layers == "all":
        return "all"
    if isinstance(layers, bool) or not isinstance(layers, Integral):
        raise ValueError(f'layers is {shorten(layers)}; it must be an index or "all".')
    return int(layers)


def as_limit(value: Any, name: str) -> int | None:
    """Return a count as a Python integer, `None` as it is.

    Raises:
        ValueError: On anything else.
    """
    return None if value is None else as_count(value, name, ", or None")


__all__ = ["as_limit", "check_class_numbers", "check_models", "check_names", "check_reading", "check_texts"]
