"""Checks of single arguments, used wherever they are given."""

import numbers
import os
import re
import reprlib
from collections.abc import Container, Mapping
from typing import Any

import numpy as np


LONGEST = 100  # characters of a value in a message
LONGEST_PATH = 4096
SURROGATE = re.compile("[\ud800-\udfff]")


class _Repr(reprlib.Repr):
    """Represents values of any type and size without an error."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = LONGEST
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxarray = 20

    def repr_int(self, x: int, level: int) -> str:
        return "an integer of more than 20 digits" if abs(x) > 10**20 else repr(x)


def shorten(value: Any) -> str:
    """Represent a value for a message: on one line, shortened where it is long."""
    shown = " ".join(_Repr().repr(value).split())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."


def well_formed(text: str) -> str:
    """Replace lone surrogates, which neither UTF-8 nor a tokenizer takes, by U+FFFD."""
    if SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def check_kind(name: str, value: Any, *kinds: type) -> None:
    """Raise a TypeError that names an argument, unless it is of one of some types."""
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise TypeError(f"{name} is {shorten(value)} of type {type(value).__name__}; it must be a {wanted}.")


def as_flag(value: Any, name: str) -> bool:
    """Return a flag (a boolean of Python or numpy, 0 or 1) as a Python boolean.

    Raises:
        ValueError: On anything else; the message begins with `name`.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, int) or plain not in (0, 1):
        raise ValueError(f"{name} is {shorten(value)}; it must be True or False.")
    return bool(plain)


def as_source(value: Any, name: str, otherwise: str = "") -> str:
    """Return a Hub id or path as a string.

    Args:
        value (`str` or `os.PathLike`):
            The argument.
        name (`str`):
            Its name; errors begin with it.
        otherwise (`str`, *optional*):
            Other values of the argument, for messages.

    Raises:
        TypeError: On another type.
        ValueError: On a string that cannot be the name of a folder or repository.
    """
    source = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(source, str):
        raise TypeError(
            f"{name} is {shorten(value)} of type {type(value).__name__}; it must be a Hub id or a path{otherwise}."
        )
    try:
        is_possible = bool(source.strip()) and b"\0" not in os.fsencode(source) and len(source) <= LONGEST_PATH
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise ValueError(f"{name} is {shorten(source)}, which cannot be the name of a folder or repository.")
    return str(source)


def check_device(name: Any) -> None:
    """Check that this machine has a device: `None`, a string, the number of an accelerator or a `torch.device`.

    Raises:
        ValueError: When it does not; the message lists its devices.
    """
    import torch

    if name is None:
        return
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = 0 if found is None else torch.accelerator.device_count()
    known = ["cpu"] if found is None else ["cpu", found.type, *(f"{found.type}:{i}" for i in range(count))]
    is_number = isinstance(name, numbers.Integral) and not isinstance(name, bool)
    if is_number and -1 <= int(name) < max(1, count):  # -1 is the CPU; without an accelerator, 0 is too
        return
    if not isinstance(name, (str, torch.device)) or str(name) not in (*known, "cpu:0"):
        shown = str(name) if isinstance(name, torch.device) else name
        raise ValueError(f"The device is {shorten(shown)}; this machine has {', '.join(known)}.")


def as_count(value: Any, name: str, otherwise: str = "") -> int:
    """Return a count, an integer of at least 1 of Python or numpy, as a Python integer.

    Raises:
        ValueError: On anything else; the message begins with `name` and ends with the other values, `otherwise`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {shorten(value)}; it must be an integer of at least 1{otherwise}.")
    if value < 1:
        raise ValueError(f"{name} is {shorten(int(value))}; it must be at least 1{otherwise}.")
    return int(value)


def as_share(value: Any, name: str) -> float:
    """Return a probability or a share, a number from 0 to 1 of Python or numpy, as a Python float.

    Raises:
        ValueError: On anything else; the message begins with `name`.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise ValueError(f"{name} is {shorten(value)}; it must be a number from 0 to 1.")
    return float(value)


# Arguments that callers of transformers models set to `None` or `False`.
OPTIONAL = ("inputs_embeds", "output_attentions", "output_hidden_states", "position_ids", "use_cache")


def refuse_unknown(given: Mapping[str, Any], known: Container[str] = ()) -> None:
    """Raise a TypeError that names keyword arguments of a forward pass beside the known ones."""
    unknown = [
        name
        for name, value in given.items()
        if name not in known and not (name in OPTIONAL and (value is None or value is False))
    ]
    if unknown:
        raise TypeError(f"The model got the unexpected keyword arguments {unknown}; leave them out.")
