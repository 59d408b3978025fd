"""Keys of examples: digests of their texts, by which a stored support set finds an example without its text."""

import hashlib
import json
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.columns import TableOptions
from transformers_tart.inputs.examples import parse_examples
from transformers_tart.inputs.modality import Modality
from transformers_tart.inputs.texts import Text


KEY_SIZE = 16  # bytes


def keys_of(texts: Sequence[Text]) -> Tensor:
    """Return the keys (n, 16) uint8 of texts or text pairs."""
    found = [hashlib.blake2b(json.dumps(text).encode(), digest_size=KEY_SIZE).digest() for text in texts]
    return torch.tensor([list(key) for key in found], dtype=torch.uint8).reshape(-1, KEY_SIZE)


def find_keys(keys: Tensor, wanted: Tensor) -> list[list[int]]:
    """Return the rows of keys (k, 16) that are equal to each of those wanted (n, 16)."""
    places: dict[bytes, list[int]] = {}
    for row, key in enumerate(map(bytes, keys.tolist())):
        places.setdefault(key, []).append(row)
    return [places.get(bytes(key), []) for key in wanted.tolist()]


def check_keys(keys: Tensor | None, count: int) -> None:
    """Raise a ValueError unless there is a key for each of `count` examples, or none."""
    if keys is not None and (keys.shape != (count, KEY_SIZE) or keys.dtype != torch.uint8):
        raise ValueError(
            f"keys must be ({count}, {KEY_SIZE}) uint8, a key for each example; got {tuple(keys.shape)} {keys.dtype}."
        )


def find_examples(
    support: Any,
    examples: Any,
    modality: Modality,
    names: Sequence[str] | None = None,
    options: TableOptions | None = None,
) -> list[int]:
    """Return the rows of a support set that hold some examples, all copies of each.

    Args:
        support ([`SupportSet`]), modality ([`Modality`]):
            The support set, and the modality of its inputs.
        examples (`int`, `dict`, `list`, an array or a table):
            Indices in the order of the support set, or examples as in [`parse_examples`].
        names (`list[str]`, *optional*), options ([`TableOptions`], *optional*):
            Names that a user gave the classes, and options for reading tables.

    Raises:
        ValueError: On an index out of range, an example that is not there, or examples where there are no keys.
    """
    if getattr(examples, "ndim", 2) < 2 and hasattr(examples, "tolist"):
        examples = examples.tolist()  # of an array, a Series or a tensor
    if isinstance(examples, (numbers.Integral, str)) or (isinstance(examples, Mapping) and _is_row(examples)):
        examples = [examples]
    listed = list(examples) if isinstance(examples, (list, tuple, range, set)) else None
    if listed is not None and all(isinstance(row, numbers.Integral) and not isinstance(row, bool) for row in listed):
        if outside := [row for row in listed if not 0 <= row < len(support)]:
            raise ValueError(f"The support set has {len(support)} examples, numbered from 0; got {shorten(outside)}.")
        return sorted({int(row) for row in listed})
    if support.keys is None:
        raise ValueError(
            "This support set holds no keys of its examples, as those of images, of audio and of version 0.1; remove "
            "examples by their indices."
        )
    parsed = parse_examples(examples, modality, names, options=options, known_names=support.label_names)
    found = find_keys(support.keys, keys_of(parsed.inputs))
    pairs = zip(found, parsed.label_sets(), strict=True)
    same = [[row for row in rows if support.label_set(row) == labels] for rows, labels in pairs]
    if absent := [number for number, rows in enumerate(same) if not rows]:
        raise ValueError(
            f"{len(absent)} of {len(same)} examples are not in the support set with this text and label, the first "
            f"of them number {absent[0]}; none is removed."
        )
    return sorted({row for rows in same for row in rows})


def _is_row(example: Mapping) -> bool:
    values = example.values()
    return any(isinstance(value, str) for value in values) or not any(isinstance(x, (list, tuple)) for x in values)


__all__ = ["check_keys", "find_examples", "find_keys", "keys_of"]
