"""Conversion of checkpoints of the published TART code."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transformers_tart.checks.arguments import as_source, shorten
from transformers_tart.checks.bounds import read_object
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.errors import CorruptFileError
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


SIZES = {
    "n_dims": "num_components",
    "n_positions": "n_positions",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}
PREFIXES = {"_read_in.": "read_in.", "_backbone.": "backbone.", "_read_out.": "read_out."}
# The unused vocabulary, and masks that old versions of transformers stored among the weights.
UNUSED = (".wte.weight", ".attn.bias", ".attn.masked_bias")
# Errors that torch raises for damaged files.
DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
MAX_OVERHEAD = 2**20  # bytes; archives are not compressed, and their directory is small


def convert_reference_checkpoint(
    path: str | os.PathLike, config: TartReasonerConfig | Mapping[str, Any] | str | os.PathLike
) -> TartReasoner:
    r"""
    Convert a published reasoning head (arXiv 2306.07536) to a [`TartReasoner`] of the `gpt2` architecture.

    Args:
        path (`str` or `Path`):
            The `.pt` file: a state dict, or a training checkpoint with one under `model_state_dict`. It is loaded
            with `weights_only=True`.
        config ([`TartReasonerConfig`], `dict`, `str` or `Path`):
            The sizes: a config, or the published ones (`n_dims`, `n_positions`, `n_embd`, `n_head`, `n_layer`) as a
            dict or a JSON file.

    Returns:
        [`TartReasoner`]: in evaluation mode.

    Raises:
        CorruptFileError: When the file is not a checkpoint of a head.
        ValueError: When sizes are missing, or do not match the weights.
    """
    path = as_source(path, "path")
    if isinstance(config, (str, os.PathLike)):
        config = as_source(config, "config")
        config = read_object(config, Path(config).name)
    if isinstance(config, Mapping):
        config = _reasoner_config(config)
    if not isinstance(config, TartReasonerConfig):
        raise TypeError(f"config is {type(config).__name__}; give a TartReasonerConfig, a dict or a JSON file.")
    reasoner = TartReasoner(config)
    weights = {
        new + name.removeprefix(old): tensor
        for name, tensor in _read_state_dict(path).items()
        for old, new in PREFIXES.items()
        if name.startswith(old) and not name.endswith(UNUSED)
    }
    expected = reasoner.architecture.state_dict()
    weights["backbone.wte.weight"] = torch.zeros_like(expected["backbone.wte.weight"])
    if weights.keys() != expected.keys():
        difference = sorted(weights.keys() ^ expected.keys())
        raise ValueError(
            f"The checkpoint and the config describe different heads: {difference[:3]} and "
            f"{max(0, len(difference) - 3)} more weights are in one only; check n_layer."
        )
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise CorruptFileError(f"{name} of the checkpoint is not a tensor of floating-point numbers.")
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} in the checkpoint and {tuple(expected[name].shape)} by the "
                "config; check n_dims, n_positions and n_embd."
            )
        if not torch.isfinite(tensor).all():
            raise CorruptFileError(f"{name} of the checkpoint holds NaN or infinite values.")
    reasoner.architecture.load_state_dict(weights)
    return reasoner.eval()


def _reasoner_config(sizes: Mapping[str, Any]) -> TartReasonerConfig:
    if missing := [name for name in SIZES if name not in sizes]:
        raise ValueError(f"The published config lacks {missing}; it has {sorted(sizes)}.")
    return TartReasonerConfig(architecture="gpt2", **{field: sizes[name] for name, field in SIZES.items()})


def _read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                announced = sum(entry.file_size for entry in archive.infolist())
            if announced > os.path.getsize(path) + MAX_OVERHEAD:
                raise RuntimeError(f"it declares {announced} bytes, more than it holds")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except DAMAGE as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]  # torch adds advice to unpickle it
        raise CorruptFileError(f"{path} cannot be read as a file of tensors: {shorten(reason)}") from err
    state = checkpoint.get("model_state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping) or not any(str(name).startswith("_backbone.") for name in state):
        raise CorruptFileError(f"{path} is not a published TART head: it has no weights of a `_backbone`.")
    return dict(state)


__all__ = ["convert_reference_checkpoint"]
