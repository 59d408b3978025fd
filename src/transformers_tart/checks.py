"""Checks of single arguments, by one rule wherever they are given."""

import numbers
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


__all__ = ["as_count"]
