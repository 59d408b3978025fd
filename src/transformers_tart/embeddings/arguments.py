"""Checks of the arguments of the functions that embed texts."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from transformers import PreTrainedModel

from transformers_tart.checks.arguments import as_count, as_flag, check_kind, shorten
from transformers_tart.checks.templates import parse_template, parse_view_template
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.inputs.containers import can_iterate, unpack
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.labels import plain_label
from transformers_tart.inputs.modality import TEXT
from transformers_tart.inputs.texts import Text, parse_text
from transformers_tart.inputs.tokenization import check_tokenizer
from transformers_tart.inputs.views import (
    IN_CONTEXT_PROTOCOLS,
    POOLINGS,
    PROMPT_POOLINGS,
    PROTOCOLS,
    View,
    check_pooling,
)


def check_models(backbone: Any, tokenizer: Any, cache: Any = None) -> None:
    """Raise a TypeError unless a backbone, its tokenizer and a cache are of the right types."""
    check_kind("backbone", backbone, PreTrainedModel)
    check_tokenizer(tokenizer)
    check_kind("cache", cache, EmbeddingCache, type(None))


def check_texts(texts: Any, name: str) -> list[Text]:
    """Return texts and (text, text_pair) tuples, at least one, as a list; of a table its column `text`."""
    items = _as_list(unpack(texts, TEXT), name)
    if not items:
        raise ValueError(f"{name} is empty: there are no texts to embed.")
    for i, item in enumerate(items):
        if isinstance(item, tuple) and len(item) == 2:
            item = {"text": item[0], "text_pair": item[1]}
        items[i] = parse_text(item, f"{name}[{i}]")
    return items


def check_class_numbers(labels: Any, name: str) -> list[int]:
    """Return a list of class numbers as Python integers; raise a TypeError or ValueError on anything else."""
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


def check_names(names: Any, labels: Iterable[int]) -> tuple[str, ...]:
    """Return the names of the classes in a prompt, by default their numbers; raise an error where one is missing."""
    count = max(labels) + 1
    if names is None:
        return tuple(map(str, range(count)))
    found = _as_list(names, "label_names")
    if len(found) < count or not all(isinstance(name, str) for name in found):
        raise ValueError(f"label_names is {shorten(found)}; give a string for each of the {count} classes.")
    return tuple(found)


def check_options(
    protocol: Any = "stream",
    template: Any = None,
    pooling: Any = "mean",
    normalize: Any = False,
    layers: Any = -1,
    max_length: Any = None,
) -> EmbeddingOptions:
    """Return the options of a function as a record; raise a ValueError on an invalid one."""
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {shorten(protocol)}; it must be one of {PROTOCOLS}.")
    check_pooling(pooling, PROMPT_POOLINGS if protocol in IN_CONTEXT_PROTOCOLS else POOLINGS)
    view = View(pooling, template, pooling, layers, as_flag(normalize, "normalize"))
    options = EmbeddingOptions(protocol, as_limit(max_length, "max_length"), (view,))
    if template is not None and view.is_of_prompt != options.has_prompt:
        parse_template(template) if options.has_prompt else parse_view_template(template)
    return options


def as_limit(value: Any, name: str) -> int | None:
    """Return a count of at least 1 as a Python integer, `None` as it is."""
    return None if value is None else as_count(value, name, ", or None")
