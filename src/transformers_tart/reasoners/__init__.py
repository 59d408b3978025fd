"""Reasoners inside this package, loaded by name without network.

`"kernel"`, the default and so far the only one, reads any number of examples, dimensions and classes; its card lies
beside its weights.
"""

import os
from pathlib import Path

from transformers_tart.checks.arguments import as_source


EMBEDDED = {name: Path(__file__).parent / name for name in ("kernel",)}


def locate(name_or_path: str | os.PathLike) -> str | os.PathLike:
    """The folder of an embedded reasoner, or what was given.

    Only the bare strings are names: `Path("kernel")` and `"./kernel"` are folders.
    """
    name = as_source(name_or_path, "The reasoner", " or a loaded TartReasoner")
    return EMBEDDED.get(name, name) if isinstance(name_or_path, str) else name_or_path


__all__ = ["EMBEDDED", "locate"]
