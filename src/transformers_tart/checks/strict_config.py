"""Plain errors of strict configs: those of `huggingface_hub.dataclasses.strict` are not ValueErrors."""

import functools
from typing import Any, TypeVar

import numpy as np
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError


LONGEST_REASON = 500  # characters; the reason repeats the value
Config = TypeVar("Config", bound=type)


class FieldError(ValueError, TypeError):
    """A field of a config has a value that is not allowed."""


def plain_errors(cls: Config) -> Config:
    """Make a strict config class raise a ValueError that names the field, at construction and at assignment.

    Scalars of numpy become Python's, so that they can be saved.
    """
    given: Any = cls
    set_original, validate_original = given.__setattr__, given.validate

    @functools.wraps(set_original)
    def set_field(self: Any, name: str, value: Any) -> None:
        try:
            set_original(self, name, value.item() if isinstance(value, np.generic) else value)
        except StrictDataclassFieldValidationError as err:
            reason = str(err.__cause__)[:LONGEST_REASON]
            raise FieldError(reason if name in reason else f"{name}: {reason}") from None

    @functools.wraps(validate_original)
    def validate(self: Any) -> None:
        try:
            validate_original(self)
        except StrictDataclassClassValidationError as err:
            raise (err.__cause__ or err) from None  # the cause is a ValueError or TypeError

    given.__setattr__, given.validate = set_field, validate
    return cls
