"""Imports of packages that are installed by extras of this package."""

import importlib
from types import ModuleType

from transformers_tart.errors import MissingPackageError


def import_package(name: str, extra: str, purpose: str) -> ModuleType:
    """Import a package of an extra.

    Raises:
        MissingPackageError: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        if err.name != name:
            raise
        raise MissingPackageError(
            f"{purpose} needs the package {name}: pip install 'transformers-tart[{extra}]'.", name=name
        ) from err


__all__ = ["import_package"]
