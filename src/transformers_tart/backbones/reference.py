"""Language models inside this package, loaded by name without network.

`"mini"` is the only one: a small GPT-NeoX for first steps, tests and demonstrations; its card lies beside its weights.
transformers itself does not know the name: give `MINI`, the folder, to its Auto classes and to `pipeline(model=...)`.
"""

import functools
import hashlib
import os
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from transformers_tart.checks.arguments import as_source
from transformers_tart.errors import BackboneNotFoundError


MINI = Path(__file__).parent / "mini"
EMBEDDED = {"mini": MINI}
VERSIONED = ("model.safetensors", "config.json", "tokenizer.json")


def as_name(name_or_path: str | os.PathLike) -> str:
    """A Hub id, a folder or the name of an embedded backbone, as a string.

    Only the bare string `"mini"` is that name: `Path("mini")` and `"./mini"` are folders.

    Raises:
        TypeError, ValueError: When it can be none of these.
    """
    name = as_source(name_or_path, "The backbone", " or a loaded PreTrainedModel")
    return os.path.abspath(name) if name in EMBEDDED and not isinstance(name_or_path, str) else name


def reference(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """How a config refers to a backbone, so that it means the same from another folder or on another machine.

    Args:
        name (`str`):
            As [`as_name`] gives it.
        revision (`str`, *optional*):
            Revision of the backbone's repository.

    Returns:
        `tuple[str, str | None]`: name and revision. An embedded backbone has its name and a digest of its files, also
        where its folder was given; another folder its absolute path.
    """
    for embedded, folder in EMBEDDED.items():
        if name == embedded or (os.path.isdir(name) and os.path.samefile(name, folder)):
            return embedded, version_of(embedded)
    return (os.path.abspath(name) if os.path.isdir(name) else name), revision


def locate(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Folder or Hub id, and revision, from which transformers loads what [`reference`] refers to.

    Raises:
        BackboneNotFoundError: When another version of an embedded backbone is asked for than this package holds: its
            embeddings would not fit a support set made with that version.
    """
    if name not in EMBEDDED:
        return name, revision
    if revision not in (None, version_of(name)):
        raise BackboneNotFoundError(
            f'This transformers-tart holds version {version_of(name)} of the backbone "{name}", not {revision}. '
            "Install the transformers-tart that saved the model, or compose it anew and give the examples again."
        )
    return str(EMBEDDED[name]), None


def check_reference(base: str, task: str) -> None:
    """Raise a ValueError when a task from the Hub refers to a folder of this machine.

    A task that lies in a folder may: nothing of the other folder is read but configs, safetensors and tokenizers.
    """
    if os.path.isdir(task) or base in EMBEDDED:
        return
    try:
        validate_repo_id(base)
    except HFValidationError as err:
        raise ValueError(
            f"{task} refers to the backbone {base!r}, a path and not a repository of the Hub; pass a copy of the "
            "backbone that you trust: backbone=<Hub id, folder or model>."
        ) from err


def is_local(name: str) -> bool:
    """Whether a reference is to a folder of this machine, which nobody else has."""
    return name not in EMBEDDED and os.path.isdir(name)


@functools.cache
def version_of(name: str) -> str:
    """The version of an embedded backbone: the start of a SHA-256 of weights, config and tokenizer."""
    digest = hashlib.sha256()
    for file in VERSIONED:
        digest.update((EMBEDDED[name] / file).read_bytes())
    return digest.hexdigest()[:12]


__all__ = ["EMBEDDED", "MINI", "as_name", "check_reference", "is_local", "locate", "reference", "version_of"]
