"""Loading through the Auto classes of transformers: no code is run and nothing unpickled that nobody asked for.

Left to itself, transformers asks on the terminal whether the code of a repository may run. Here it may not, unless the
caller passes `trust_remote_code=True`.
"""

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import cached_file

from transformers_tart.backbones.adapters import base_of_adapter
from transformers_tart.checks.bounds import CODE_FIELDS, read_object
from transformers_tart.errors import CorruptFileError, MissingPackageError
from transformers_tart.hub.push import explain_failures
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.loading.weights import Build, check_backbone, check_not_pickled


OWN = "tart"  # how the model types of this package begin
HUB = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)
CONFIG_FILE = "config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# The files in which a repository may name code of its own, under `auto_map`.
CODE_FILES = (CONFIG_FILE, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
# The field that names a file of weights.
WEIGHTS_FIELD = "transformers_weights"
# What transformers, tokenizers and torch raise for damaged files, besides the errors that callers expect.
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


@contextmanager
def explain_damage(name: str | os.PathLike) -> Iterator[None]:
    """Raise a CorruptFileError that names the repository in place of what damaged files end in.

    What loads them is not written with damaged files in mind: it ends in a KeyError, an AttributeError, or, from the
    Rust code of tokenizers, in a bare Exception.
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


def load_auto(auto_class: Any, name: str | os.PathLike, **loading: Any) -> Any:
    r"""
    Load a config, a tokenizer or another processor through an Auto class.

    Args:
        auto_class (`type`):
            `AutoConfig`, `AutoTokenizer`, `AutoImageProcessor`, ...
        name (`str` or `Path`):
            Hub id or folder.
        loading:
            As in its `from_pretrained`. Code of the repository runs with `trust_remote_code=True` only.

    Raises:
        CorruptFileError: When files are damaged.
        ValueError: When the repository needs code of its own, and nobody said that it may run.
    """
    trusts, name = loading.pop("trust_remote_code", None) is True, os.fspath(name)
    place = {key: loading[key] for key in HUB if key in loading}
    with explain_damage(name):
        check_files(name, trusts, **place)
        try:
            return auto_class.from_pretrained(name, trust_remote_code=trusts, **loading)
        except ValueError as err:
            if trusts or "trust_remote_code" not in str(err):
                raise
            raise ValueError(
                f"{name} needs code of its own{_name_code(name, place)}, which is not run unless you say so. Read it, "
                "and if you trust it pass trust_remote_code=True."
            ) from err


@one_at_a_time
def load_auto_model(auto_class: Any, name: str | os.PathLike, **loading: Any) -> Any:
    r"""
    Load a backbone through an Auto class.

    Args:
        auto_class (`type`):
            `AutoModel`, `AutoModelForCausalLM`, ...; or a model class, with its `config`.
        name (`str` or `Path`):
            Hub id or folder.
        loading:
            As in its `from_pretrained`. Code of the repository runs with `trust_remote_code=True` only, and weights
            are read from safetensors.

    Raises:
        CorruptFileError: When files are damaged or pickled, or the config asks for more than the weights hold.
        ValueError: When the repository needs code of its own, and nobody said that it may run.
    """
    name = os.fspath(name)
    check_weights(name, **loading)
    return load_auto(auto_class, name, **{**loading, "use_safetensors": True})


def build_empty(config: PreTrainedConfig) -> nn.Module:
    """Build what `AutoModel` makes of a config; nothing where only code of the repository could."""
    if type(config) not in AutoModel._model_mapping:
        return nn.Module()
    return AutoModel.from_config(config, trust_remote_code=False)


def check_weights(name: str, build: Build = build_empty, **loading: Any) -> None:
    """Raise an error when the weights of a backbone are pickled, or its config asks for more than they hold."""
    if loading.get("use_safetensors") is False:
        raise ValueError(
            "use_safetensors is False, but this package unpickles no weights; load the model with transformers and "
            "pass the model itself."
        )
    if loading.get("gguf_file") is not None or loading.get("state_dict") is not None:
        return
    place = {key: loading[key] for key in HUB if key in loading}
    files = {key: value for key, value in place.items() if key != "trust_remote_code"}
    with explain_damage(name):
        base = base_of_adapter(name, **files)
        if base is not None and find_file(name, ADAPTER_WEIGHTS, **files) is None:
            check_not_pickled(name, **files)
        if base is not None and base[0] != name:
            name = base[0]
            place, files = ({**these, "revision": base[1], "subfolder": ""} for these in (place, files))
        if find_file(name, CONFIG_FILE, **files) is not None:  # without one transformers says what is missing
            check_backbone(name, load_auto(AutoConfig, name, **place), build, loading.get("variant"), **files)


def check_files(name: str, trusts_code: bool = False, **hub: Any) -> None:
    r"""
    Check the JSON files of a backbone's repository before transformers reads them.

    Args:
        name (`str`):
            Hub id or folder.
        trusts_code (`bool`, *optional*, defaults to `False`):
            Whether code of the repository may run.
        hub:
            Where the repository is, as `cached_file` of transformers takes it.

    Raises:
        CorruptFileError: When one is no JSON object, or nested too deep.
        ValueError: When the repository is one of this package, or names pickled weights or code to compute with.
    """
    for file in CODE_FILES:
        path = find_file(name, file, **hub)
        if path is None:
            continue
        try:
            fields = read_object(path, f"{file} of {name}")
        except ValueError as err:
            raise CorruptFileError(f"{err} Download it again (force_download=True).") from err
        if file == CONFIG_FILE:
            _check_config(name, fields, trusts_code)


def _check_config(name: str, fields: dict[str, Any], trusts_code: bool) -> None:
    level: list[tuple[str, Any]] = list(fields.items())
    while level:
        for field, value in level:
            if field == "model_type" and not isinstance(value, str):
                raise CorruptFileError(f"config.json of {name} has model_type={value!r}, which must be a string.")
            if (
                field == WEIGHTS_FIELD
                and value is not None
                and not str(value).endswith((".safetensors", ".safetensors.index.json"))
            ):
                raise ValueError(
                    f"config.json of {name} has {field}={value!r}; weights are read from safetensors files only."
                )
            if field in CODE_FIELDS and "/" in str(value) and not trusts_code:
                raise ValueError(
                    f"config.json of {name} has {field}={value!r}, code of another repository, which is not run "
                    "unless you say so: if you trust it pass trust_remote_code=True."
                )
        level = [
            pair for _, value in level for each in _as_list(value) if isinstance(each, dict) for pair in each.items()
        ]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _name_code(name: str, hub: dict[str, Any]) -> str:
    """The classes that a repository has the code of, in words."""
    named = set()
    for file in CODE_FILES:
        path = find_file(name, file, **hub)
        auto_map = None if path is None else read_object(path, file).get("auto_map")
        for reference in auto_map.values() if isinstance(auto_map, dict) else ():
            named |= {str(each) for each in _as_list(reference) if each is not None}
    return f" ({', '.join(sorted(named))})" if named else ""


def find_file(name: str, file: str, **hub: Any) -> str | None:
    """Return where a file of a repository is on this machine, `None` where the repository has none."""
    return cached_file(
        name, file, **hub, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )


def is_own(config: PreTrainedConfig) -> bool:
    """Whether a config is one of this package, which no backbone may have."""
    kinds = [config, *(getattr(config, key, None) for key in config.sub_configs)]
    return any(str(getattr(kind, "model_type", "")).startswith(OWN) for kind in kinds)


__all__ = [
    "HUB",
    "OWN",
    "check_files",
    "check_weights",
    "explain_damage",
    "find_file",
    "is_own",
    "load_auto",
    "load_auto_model",
]
