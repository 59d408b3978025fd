"""Access to repositories on the Hub and in folders: arguments, files, revisions, and errors with their names."""

import json
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import httpx
from safetensors import SafetensorError
from transformers.utils import cached_file
from transformers.utils.hub import resolve_revision

from transformers_tart.errors import CorruptFileError, MissingPackageError


# Arguments of `from_pretrained` that hold for every repository a model is loaded from, and those of one repository.
ACCESS = ("cache_dir", "force_download", "local_files_only", "proxies", "token")
PLACE = ("revision", "subfolder")
TRUST = "trust_remote_code"  # applies to the repository of the backbone alone
HUB = (*ACCESS, *PLACE, TRUST)
# Errors of transformers, tokenizers and torch on damaged files, besides those that callers expect.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    UnicodeDecodeError,
    json.JSONDecodeError,
    pickle.UnpicklingError,
)


def select(arguments: Mapping[str, Any], names: Iterable[str] = (*ACCESS, *PLACE)) -> dict[str, Any]:
    """Return the named arguments that are given; `None` means not given."""
    return {name: arguments[name] for name in names if arguments.get(name) is not None}


def take(arguments: MutableMapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Remove the named arguments; return those that are given, where `None` means not given."""
    names = tuple(names)
    taken = select(arguments, names)
    for name in names:
        arguments.pop(name, None)
    return taken


def find_file(name: str | os.PathLike, file: str, **hub: Any) -> str | None:
    """Return the local path of a file of a repository, `None` where the repository does not have it."""
    return cached_file(
        name, file, **hub, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )


def pin_revision(name: str | os.PathLike, revision: str | None = None, **hub: Any) -> str | None:
    """Return the commit of a revision of a repository, so that all of its files come from one state.

    Given a branch, transformers would also send the token to a public service that converts weights, where there are
    no safetensors files.
    """
    pinned = resolve_revision(name, revision, **select(hub, ("cache_dir", "local_files_only", "token")))
    return getattr(pinned, "resolved", pinned)


@contextmanager
def explain_failures(name: str | os.PathLike) -> Iterator[None]:
    """Re-raise errors of broken connections and damaged weights with the name of the repository."""
    try:
        yield
    except SafetensorError as err:
        raise CorruptFileError(
            f"The weights in {name} are damaged; download them again (force_download=True): {err}"
        ) from err
    except (httpx.TransportError, OSError) as err:
        cause = err if isinstance(err, httpx.TransportError) else err.__cause__ or err.__context__
        if isinstance(cause, httpx.TransportError):
            raise OSError(f"The connection to the Hub broke while {name} was loaded; try again: {cause}") from err
        if isinstance(cause, HFValidationError):
            raise OSError(f"{name} is no folder on this machine, and no id of a repository of the Hub.") from err
        if type(err) is OSError and err.errno is None and os.fspath(name) not in str(err):
            raise OSError(f"{name} cannot be loaded: {err}") from err
        raise


@contextmanager
def explain_damage(name: str | os.PathLike) -> Iterator[None]:
    """Re-raise errors on damaged files as a CorruptFileError that names the repository.

    Code that loads files does not expect damaged ones: it ends in a KeyError, an AttributeError, or, in the Rust code
    of tokenizers, a bare Exception.
    """
    try:
        with explain_failures(name):
            yield
    except torch.OutOfMemoryError:
        raise
    except ImportError as err:
        raise MissingPackageError(f"{name} needs a package to be loaded: {err}", name=err.name) from err
    except Exception as err:  # tokenizers raises nothing narrower
        if not isinstance(err, DAMAGE) and type(err) is not Exception:
            raise
        raise CorruptFileError(
            f"{name} cannot be loaded: its files are damaged, incomplete or of another kind ({type(err).__name__}: "
            f"{err}). Download them again (force_download=True)."
        ) from err
