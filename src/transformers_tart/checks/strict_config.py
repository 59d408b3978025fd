"""Configs whose errors are plain ones: those of `huggingface_hub.dataclasses.strict` are no ValueErrors."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError


LONGEST_REASON = 500  # it repeats the value, which may be anything
Config = TypeVar("Config", bound=type)


class FieldError(ValueError, TypeError):
    """A field of a config has a value that it cannot have."""


def plain_errors(cls: Config) -> Config:
    """Make a strict config class raise a ValueError that names the field, when it is made and when a field is set.

    Scalars of numpy become Python's, so that they can be saved.
    """
    given: Any = cls
    given.__setattr__, given.validate = _set_field(given.__setattr__), _validate(given.validate)
    return cls


def _set_field(original: Callable[[Any, str, Any], None]) -> Callable[[Any, str, Any], None]:
    @functools.wraps(original)
    def set_field(self: Any, name: str, value: Any) -> None:
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            original(self, name, plain)
        except StrictDataclassFieldValidationError as err:
            reason = str(err.__cause__)[:LONGEST_REASON]
            raise FieldError(reason if name in reason else f"{name}: {reason}") from None

    return set_field


def _validate(original: Callable[[Any], None]) -> Callable[[Any], None]:
    @functools.wraps(original)
    def validate(self: Any) -> None:
        try:
            original(self)
        except StrictDataclassClassValidationError as err:
            # what a check of a config raises is a ValueError or TypeError already
            raise (err.__cause__ or err) from None

    return validate


__all__ = ["FieldError", "plain_errors"]
