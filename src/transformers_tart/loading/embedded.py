"""Backbones inside this package, loaded by name without network.

`"mini"` is the only one: a small GPT-NeoX for first steps, tests and demonstrations; its card lies beside its weights.
transformers itself does not have the name: give `MINI`, the folder, to its Auto classes and to `pipeline(model=...)`.
"""

import functools
import hashlib
import os
from pathlib import Path


MINI = Path(__file__).parents[1] / "backbones" / "mini"
EMBEDDED = {"mini": MINI}
VERSIONED = ("model.safetensors", "config.json", "tokenizer.json")


def is_local(name: str) -> bool:
    """Return whether the name of a backbone is a folder of this machine, which nobody else has."""
    return name not in EMBEDDED and os.path.isdir(name)


@functools.cache
def version_of(name: str) -> str:
    """Return the version of an embedded backbone: the start of a SHA-256 of weights, config and tokenizer."""
    digest = hashlib.sha256()
    for file in VERSIONED:
        digest.update((EMBEDDED[name] / file).read_bytes())
    return digest.hexdigest()[:12]
