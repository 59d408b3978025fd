"""Checks of single arguments, by one rule wherever they are given."""

import numbers
from collections.abc import Container, Mapping
from typing import Any


def as_count(value: Any, name: str, otherwise: str = "") -> int:
    """Return a count as a Python integer.

    Args:
        value (`numbers.Integral`):
            Any integer of 1 or more, of numpy too.
        name (`str`):
            The argument, with which errors begin.
        otherwise (`str`, *optional*):
            What else the argument may be, for messages.

    Raises:
        ValueError: On anything else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least 1{otherwise}.")
    if value < 1:
        raise ValueError(f"{name} is {int(value)}; it must be at least 1{otherwise}.")
    return int(value)


# What callers of any model of transformers pass to say that they want none of it.
OPTIONAL = ("inputs_embeds", "output_attentions", "output_hidden_states", "position_ids", "use_cache")


def refuse_unknown(given: Mapping[str, Any], known: Container[str] = ()) -> None:
    """Raise a TypeError that names the keyword arguments of a forward pass that nothing would read.

    Args:
        given (`dict`):
            Keyword arguments beside those of the signature.
        known (`Container[str]`, *optional*):
            Names of those that are read.
    """
    unknown = [
        name
        for name, value in given.items()
        if name not in known and not (name in OPTIONAL and (value is None or value is False))
    ]
    if unknown:
        raise TypeError(f"The model got the unexpected keyword arguments {unknown}; leave them out.")


__all__ = ["as_count", "refuse_unknown"]
