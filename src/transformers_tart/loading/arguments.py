"""Checks of the arguments of `from_pretrained` and `from_backbone`, before anything is loaded.

transformers itself raises errors on wrong ones that blame the files.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from transformers_tart.checks.arguments import as_flag, as_source, check_device, check_kind, shorten
from transformers_tart.checks.bounds import check_inside


PLACEMENTS = ("auto", "balanced", "balanced_low_0", "sequential")
LONGEST_NAME = 1000


def check_loading(arguments: Mapping[str, Any]) -> None:
    """Check the arguments that this package or transformers has; `None` means not given.

    Raises:
        TypeError, ValueError: When one of them is wrong; the message begins with its name.
    """
    for name, value in arguments.items():
        if name in CHECKS and value is not None:
            CHECKS[name](name, value)


def _each(value: Any) -> list[Any]:
    """Return the values of a mapping; any other value alone."""
    return list(value.values()) if isinstance(value, Mapping) else [value]


def _check_dtype(name: str, value: Any) -> None:
    for each in _each(value) or [value]:
        dtype = getattr(torch, each, None) if isinstance(each, str) else each
        is_float = isinstance(dtype, torch.dtype) and dtype.is_floating_point
        if not is_float and not (isinstance(each, str) and each == "auto"):
            raise ValueError(f'{name} is {shorten(value)}; it must be "auto" or a floating-point torch.dtype.')


def _check_device_map(name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        if not value or not all(isinstance(module, str) for module in value):
            raise ValueError(f"{name} is {shorten(dict(value))}; its keys must be names of modules.")
        devices = [device for device in value.values() if not (isinstance(device, str) and device == "disk")]
    else:
        devices = [] if isinstance(value, str) and value in PLACEMENTS else [value]
    for device in devices:
        try:
            if device is None:
                raise ValueError("A device is None.")
            check_device(device)
        except ValueError as err:
            raise ValueError(f"{name} is {shorten(value)}; give one of {PLACEMENTS}, or devices. {err}") from err


def _check_name(name: str, value: Any) -> None:
    for each in _each(value) if name == "attn_implementation" else [value]:
        if not isinstance(each, str) or not 0 < len(each) <= LONGEST_NAME or not each.isprintable():
            raise ValueError(f"{name} is {shorten(each)}; it must be a name, as a string.")


def _check_subfolder(name: str, value: Any) -> None:
    if not isinstance(value, str) or value:  # an empty one is the repository itself
        check_inside(name, value)


def _check_safetensors(name: str, value: Any) -> None:
    if value is not True:
        raise ValueError(f"{name} is {shorten(value)}, but this package unpickles no weights; leave it out.")


def _check_token(name: str, value: Any) -> None:
    if not isinstance(value, bool) and not (isinstance(value, str) and value.isprintable()):
        raise TypeError(f"{name} is of type {type(value).__name__}; it must be a string or a boolean.")


def _check_quantization(name: str, value: Any) -> None:
    method = value.get("quant_method") if isinstance(value, dict) else getattr(value, "quant_method", None)
    if method is None:
        raise TypeError(f"{name} is {shorten(value)}; give a quantization config of transformers.")


def _check_scalar(name: str, value: Any) -> None:
    if not isinstance(value, (str, int, float, np.generic)):
        raise ValueError(f"{name} is {shorten(value)} of type {type(value).__name__}; it must be a plain value.")


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("dtype", "torch_dtype"), _check_dtype),
    "device_map": _check_device_map,
    **dict.fromkeys(("attn_implementation", "revision", "base_model_revision", "variant"), _check_name),
    "subfolder": _check_subfolder,
    "use_safetensors": _check_safetensors,
    "token": _check_token,
    "cache_dir": lambda name, value: as_source(value, name),
    **dict.fromkeys(
        ("local_files_only", "force_download", "trust_remote_code"), lambda name, value: as_flag(value, name)
    ),
    "max_memory": lambda name, value: check_kind(name, value, dict),
    "quantization_config": _check_quantization,
    **dict.fromkeys(("protocol", "template", "pooling", "normalize", "max_length"), _check_scalar),
    **dict.fromkeys(("prompt", "prompt_name"), lambda name, value: check_kind(name, value, str)),
    "truncate_dim": _check_scalar,
}
