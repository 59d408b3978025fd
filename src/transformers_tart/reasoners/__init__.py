"""Reasoners, and those inside this package, which load by name without network.

`"kernel"`, the default, reads any number of examples, dimensions and classes. Its card lies beside its weights.
"""

import os
from pathlib import Path

from transformers_tart.checks.arguments import as_source


EMBEDDED = {name: Path(__file__).parent / name for name in ("kernel",)}


def locate(name_or_path: str | os.PathLike) -> str | os.PathLike:
    """Return the folder of a reasoner inside this package, or the argument itself.

    Only the bare strings are names: `Path("kernel")` and `"./kernel"` are folders.
    """
    name = as_source(name_or_path, "The reasoner", " or a loaded TartReasoner")
    return EMBEDDED.get(name, name) if isinstance(name_or_path, str) else name_or_path


__all__ = ["EMBEDDED", "locate"]
