"""Checks of weights by the headers of their files, before a model is built.

A config cannot ask for more memory than its weights fill.
"""

import copy
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, has_file

from transformers_tart.checks.bounds import check_inside, read_object
from transformers_tart.errors import CorruptFileError
from transformers_tart.loading.download import find_file, select


PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
# Fields of backbones that count modules, each with weights of its own.
COUNTS = re.compile(r"(layer|block|stage|depth|expert|head|codebook|branch)(es|s)?$")
LEAST_COUNT = 256  # some modules share weights
# Weights may be packed into four bits and less, and some tensors, such as masks, are not saved.
PACKED, UNSAVED = 16, 2**26
FLOATS = ("F16", "BF16", "F32", "F64")  # as safetensors names them


Build = Callable[[PreTrainedConfig], nn.Module]


class TensorHeader(NamedTuple):
    """Dtype of a tensor, as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_headers(name: str, variant: str | None = None, **hub: Any) -> dict[str, TensorHeader] | None:
    """Read the headers of the weights of a repository, by the names of the weights; `None` without safetensors files.

    Raises:
        CorruptFileError: When an index names shards that are missing or outside the repository.
    """
    path = _find(name, SAFE_WEIGHTS_NAME, variant, hub)
    if path is not None:
        return _read_header(path)
    index = _find(name, SAFE_WEIGHTS_INDEX_NAME, variant, hub)
    if index is None:
        return None
    headers: dict[str, TensorHeader] = {}
    for shard in read_shards(name, index):
        try:
            headers |= _read_header(str(cached_file(name, shard, **hub)))
        except OSError as err:
            raise CorruptFileError(
                f"{Path(index).name} of {name} names the shard {shard}, which cannot be loaded; download the "
                f"repository again (force_download=True): {err}"
            ) from err
    return headers


def read_shards(name: str, index: str | os.PathLike) -> list[str]:
    """Return the files in an index of weights.

    Raises:
        CorruptFileError: When it is no index, or a file is not a safetensors file inside the repository.
    """
    file = Path(index).name
    try:
        fields = read_object(index, f"{file} of {name}")
        weight_map = fields.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map or not isinstance(fields.get("metadata"), dict):
            raise ValueError(f"{file} of {name} is no index of weights: it needs a weight_map and metadata.")
        shards = sorted({check_inside(f"weight_map of {file} of {name}", shard) for shard in weight_map.values()})
    except ValueError as err:
        raise CorruptFileError(str(err)) from err
    wrong = [shard for shard in shards if not shard.endswith(".safetensors")]
    if wrong:
        raise CorruptFileError(
            f"weight_map of {file} of {name} names {wrong[0]!r}; weights are read from safetensors files only."
        )
    return shards


def check_backbone(name: str, config: PreTrainedConfig, build: Build, variant: str | None = None, **hub: Any) -> None:
    """Check that the weights of a repository suffice for the model of its config.

    Args:
        name (`str`):
            Hub id or folder.
        config (`PreTrainedConfig`):
            Config of the whole model.
        build (`Callable`):
            Builds the part to load from a copy of the config; called on the device `meta`.
        variant (`str`, *optional*), hub:
            As in `PreTrainedModel.from_pretrained`.

    Raises:
        CorruptFileError: When the weights are pickled, or the config asks for more than they hold.
    """
    headers = read_headers(name, variant, **hub)
    if headers is None:
        check_not_pickled(name, **hub)
        return
    for field, count in _counts(config.to_dict()):
        if count > max(LEAST_COUNT, len(headers)):
            raise CorruptFileError(
                f"config.json of {name} has {field}={count}, but its weights hold {len(headers)} tensors: one of the "
                "two files is damaged. Download the repository again (force_download=True)."
            )
    with torch.device("meta"):
        model = build(copy.deepcopy(config))
    wanted = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    stored = sum(math.prod(header.shape) for header in headers.values())
    if wanted > PACKED * stored + UNSAVED:
        raise CorruptFileError(
            f"config.json of {name} describes a model of {wanted} numbers, but its weights hold {stored}: one of the "
            "two files is damaged. Download the repository again (force_download=True)."
        )


def check_fit(name: str, headers: Mapping[str, TensorHeader], expected: Mapping[str, Tensor]) -> None:
    """Raise a CorruptFileError when the weights of a reasoner are not those of its config, by shape and dtype."""
    missing = sorted(expected.keys() - headers.keys())
    if missing:
        raise CorruptFileError(
            f"The weights of the reasoner in {name} are incomplete: {missing[:3]} and {max(0, len(missing) - 3)} more "
            "are missing. Of a task or composition, take TartForSequenceClassification.from_pretrained(...).reasoner."
        )
    for key, tensor in expected.items():
        found = headers[key]
        if found.shape != tensor.shape or found.dtype not in FLOATS:
            raise CorruptFileError(
                f"The weights of the reasoner in {name} do not fit its config: {key} is {found.dtype} of shape "
                f"{found.shape}, and should be one of {FLOATS} of shape {tuple(tensor.shape)}. Download them again "
                "(force_download=True)."
            )


def check_not_pickled(name: str, **hub: Any) -> None:
    """Raise a CorruptFileError when a repository without safetensors holds pickled weights."""
    folder = hub.get("subfolder") or ""
    place = select(hub, ("revision", "token", "cache_dir", "local_files_only", "proxies"))
    for file in PICKLES:
        if os.path.isdir(name):
            is_there = (Path(name) / folder / file).exists()
        else:
            is_there = has_file(name, f"{folder}/{file}" if folder else file, **place)
        if is_there:
            raise CorruptFileError(
                f"{name} holds its weights as {file}, a pickle, which this package does not read, since reading one "
                "can run code; it reads safetensors. If you trust the file, load the model with transformers, and "
                "pass the model itself, or the folder that its save_pretrained writes."
            )


def _find(name: str, file: str, variant: str | None, hub: Mapping[str, Any]) -> str | None:
    if variant is not None:
        stem, _, end = file.rpartition(".")
        file = f"{stem}.{variant}.{end}"
    return find_file(name, file, **hub)


def _read_header(path: str) -> dict[str, TensorHeader]:
    # safetensors itself compares the header with the length of the file
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {key: TensorHeader(part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}


def _counts(fields: Any, field: str = "") -> list[tuple[str, int]]:
    """Return the fields of a config, and of the configs in it, that count modules."""
    if isinstance(fields, dict):
        return [found for name, value in fields.items() for found in _counts(value, str(name))]
    if isinstance(fields, list):
        return [found for value in fields for found in _counts(value, field)]
    return [(field, fields)] if type(fields) is int and COUNTS.search(field) else []
