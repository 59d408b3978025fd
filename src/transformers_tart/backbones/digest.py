"""Digests of backbones: sampled weights, by which a task recognizes the backbone that its support set was made with.

A digest holds sampled values instead of a hash, so that the same weights in another dtype are still recognized.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from transformers_tart.loading.report import UNREAD
from transformers_tart.reasoners.kv_cache import innermost


SAMPLES = 1375  # of each tensor: finds a change of 1% of its elements with probability 1 - 1e-6
COMPILED = "_orig_mod."
GLANCES = 64  # elements of each tensor, by which changes are detected that autograd does not count
# Fields of a backbone's config that change no embedding.
NEUTRAL_FIELDS = {
    *PreTrainedConfig().to_dict().keys() - {"model_type"},
    "_commit_hash",
    "name_or_path",
    "quantization_config",
    "sentence_head_paths",
    "tie_word_embeddings",
    "use_cache",
}


@dataclass(frozen=True, eq=False)
class BackboneDigest:
    r"""
    Sampled weights of a backbone, with its adapters and settings.

    Args:
        name (`str`, *optional*):
            Hub id or folder from which the backbone was loaded.
        samples (`dict[str, torch.Tensor]`):
            Sampled values of its tensors, by their names in order, on the CPU.
        shapes (`dict[str, tuple[int, ...]]`):
            Shapes of these tensors.
        adapters (`str`, *optional*):
            Hash of the state of peft adapters: which are active, merged and disabled. `None` without adapters.
        quantization (`str`, *optional*):
            Quantization method, `None` without.
        unchecked (`int`, *optional*, defaults to 0):
            Number of entries of the state dict that cannot be read, such as weights that are offloaded elsewhere.
        settings (`dict`, *optional*):
            Fields of its config that may change an embedding.
        dtype (`str`, *optional*):
            Its dtype, such as `"float32"`, which is not compared; `None` if unknown.
    """

    name: str | None
    samples: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    adapters: str | None = None
    quantization: str | None = None
    unchecked: int = 0
    settings: Mapping[str, Any] | None = None
    dtype: str | None = None

    @classmethod
    def of(cls, backbone: PreTrainedModel) -> "BackboneDigest":
        """Sample the weights of a backbone, on any device; offloaded weights are read from their place."""
        tensors = dict(sorted(_named_tensors(backbone), key=lambda item: item[0]))
        known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return cls(
            backbone.name_or_path or None,
            _sample(known),
            {name: tuple(tensor.shape) for name, tensor in known.items()},
            _adapter_state(backbone),
            _quantization(backbone.config),
            len(tensors) - len(known),
            json.loads(json.dumps(_settings(backbone.config.to_dict()), default=str)),
            str(backbone.dtype).removeprefix("torch."),
        )

    @property
    def hexdigest(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 of the digest, for messages."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode())
        for _, values in sorted(self.tensors().items()):
            digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]

    def differences(self, other: "BackboneDigest") -> list[str]:
        """Describe how another backbone differs; return an empty list where it is the same up to the dtype.

        Values are equal bit for bit in one dtype, and within the rounding of the coarser of two dtypes. Backbones that
        are quantized in different ways cannot be compared, and no difference is reported. Of the settings, only those
        that both have are compared, since versions of transformers have more or fewer.
        """
        if not self.is_comparable(other):
            return []
        found, own, given = [], self.settings or {}, other.settings or {}
        if fields := sorted(name for name in own.keys() & given.keys() if own[name] != given[name]):
            found.append(f"other settings in its config: {', '.join(fields)}")
        if self.adapters != other.adapters:
            found.append("other adapters are loaded or active")
        if missing := sorted(self.samples.keys() ^ other.samples.keys()):
            found.append(f"{len(missing)} weights are in one only, such as {missing[0]}")
        common = sorted(self.samples.keys() & other.samples.keys())
        changed = [
            name
            for name in common
            if self.shapes[name] != other.shapes[name] or not _are_same(self.samples[name], other.samples[name])
        ]
        if changed:
            found.append(f"{len(changed)} of {len(common)} weights differ, such as {changed[0]}")
        return found

    def is_comparable(self, other: "BackboneDigest") -> bool:
        """Return whether both backbones are quantized in the same way, or neither is."""
        return self.quantization == other.quantization

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the digest for a safetensors file: for each dtype, all samples in order."""
        by_dtype: dict[str, list[Tensor]] = {}
        for values in self.samples.values():
            by_dtype.setdefault(f"backbone.{_dtype(values)}", []).append(values)
        return {name: torch.cat(parts) for name, parts in by_dtype.items()}

    def facts(self) -> dict[str, Any]:
        """Return the other facts for the metadata of that file, as JSON; not the name, which may be a path."""
        return {
            "weights": [[name, _dtype(values), list(self.shapes[name])] for name, values in self.samples.items()],
            "adapters": self.adapters,
            "quantization": self.quantization,
            "unchecked": self.unchecked,
            "settings": self.settings,
            "dtype": self.dtype,
        }

    @classmethod
    def from_file(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> "BackboneDigest":
        """Build a digest from [`BackboneDigest.facts`] and [`BackboneDigest.tensors`].

        Raises:
            ValueError, TypeError, KeyError: When they are something else.
        """
        rest = {dtype: tensors[f"backbone.{dtype}"] for dtype in {str(weight[1]) for weight in facts["weights"]}}
        samples, shapes = {}, {}
        for name, dtype, shape in facts["weights"]:
            shapes[str(name)] = size = tuple(int(length) for length in shape)
            count = min(SAMPLES, torch.Size(size).numel())
            samples[str(name)], rest[dtype] = rest[dtype][:count], rest[dtype][count:]
            if samples[name].shape != (count,) or _dtype(samples[name]) != dtype:
                raise ValueError(f"the digest of the backbone has too few samples of {name} in {dtype}")
        if any(len(values) for values in rest.values()):
            raise ValueError("the digest of the backbone has more samples than its weights")
        names = ("adapters", "quantization", "settings", "dtype")
        adapters, quantization, settings, dtype = (facts.get(field) for field in names)
        for value, kind in ((adapters, str), (quantization, str), (settings, dict), (dtype, str)):
            if not isinstance(value, kind | None):
                raise TypeError(f"the digest of the backbone holds {value!r} in place of a {kind.__name__}")
        return cls(None, samples, shapes, adapters, quantization, int(facts.get("unchecked", 0)), settings, dtype)


def state_token(model: PreTrainedModel) -> tuple[object, ...]:
    """Return a value that changes when weights, buffers, adapters or the config of a model change, at little cost.

    Of weights that are changed around autograd (`parameter.data.add_(...)`) a few elements are compared, which detects
    changes of most of a weight; digests detect smaller changes.
    """
    tensors = [*model.parameters(), *model.buffers()]
    versions = tuple((id(each), 0 if each.is_inference() else each._version) for each in tensors)
    parts: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for each in tensors:
        if each.device.type != "meta" and not hasattr(each, "__tensor_flatten__"):
            flat = each.detach().reshape(-1)
            parts.setdefault((each.device, each.dtype), []).append(flat[:: len(flat) // GLANCES | 1])
    glances = tuple(hash(torch.cat(part).cpu().view(torch.uint8).numpy().tobytes()) for part in parts.values())
    return versions, glances, str(model.config.to_dict()), _adapter_state(model)


def plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield an entry of a state dict itself, or the tensors that a quantized weight is made of."""
    if hasattr(value, "__tensor_flatten__"):
        for part in value.__tensor_flatten__()[0]:
            yield from plain_tensors(f"{name}.{part}", getattr(value, part))
    else:
        yield name, value


def _named_tensors(backbone: PreTrainedModel) -> Iterator[tuple[str, Tensor | None]]:
    """Yield the plain tensors of a state dict, with `None` in place of unreadable ones."""
    for name, value in backbone.state_dict().items():
        short = name.replace(COMPILED, "")
        if short.startswith(f"{UNREAD}."):
            continue
        if isinstance(value, Tensor) and value.device.type == "meta":
            value = _offloaded(backbone, name)
        for path, tensor in plain_tensors(short, value):
            yield path, tensor.detach() if isinstance(tensor, Tensor) else None


def _offloaded(backbone: PreTrainedModel, name: str) -> Tensor | None:
    """Return a weight that accelerate keeps on the CPU or on disk until it is needed."""
    path, _, leaf = name.rpartition(".")
    hook = getattr(backbone.get_submodule(path), "_hf_hook", None)
    maps = (getattr(each, "weights_map", None) for each in getattr(hook, "hooks", [hook]))
    return next((weights[leaf] for weights in maps if weights is not None), None)


@functools.cache
def _indices(numel: int) -> Tensor:
    return torch.randint(numel, (SAMPLES,), generator=torch.Generator().manual_seed(numel))


def _sample(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return sampled values of tensors on the CPU, with one transfer for each device and dtype."""
    flat = {name: tensor.reshape(-1) for name, tensor in tensors.items()}
    parts = {
        name: values if len(values) <= SAMPLES else values[_indices(len(values)).to(values.device)]
        for name, values in flat.items()
    }
    found: dict[str, Tensor] = {}
    place = {name: (str(values.device), str(values.dtype)) for name, values in parts.items()}
    for _, group in groupby(sorted(parts, key=place.__getitem__), key=place.__getitem__):
        names = list(group)
        together = torch.cat([parts[name] for name in names]).cpu()
        found.update(zip(names, together.split([len(parts[name]) for name in names]), strict=True))
    return {name: found[name] for name in parts}


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _are_same(a: Tensor, b: Tensor) -> bool:
    """Return whether samples are equal, or differ by the rounding of a dtype."""
    if a.dtype == b.dtype:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    if not (a.dtype.is_floating_point and b.dtype.is_floating_point):
        return False
    infos = torch.finfo(a.dtype), torch.finfo(b.dtype)
    a, b = a.double(), b.double()
    largest = min(info.max for info in infos)
    size = torch.maximum(a.abs(), b.abs())
    # one unit in the last place, since the values may have been rounded twice; and the step between subnormal values
    tolerance = max(info.eps for info in infos) * size + max(info.tiny * info.eps for info in infos)
    return bool((((a - b).abs() <= tolerance) | ((size > largest) & (a.sign() == b.sign())) | (a == b)).all())


def _quantization(config: PreTrainedConfig) -> str | None:
    found = getattr(config, "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return None if found is None else str(getattr(method, "value", method))


def _adapter_state(backbone: nn.Module) -> str | None:
    """Return a hash of which adapters of peft are active, merged and disabled in which layers."""
    fields = ("active_adapters", "merged_adapters", "scaling", "disable_adapters")
    layers = [
        (name, *(str(getattr(module, field, None)) for field in fields))
        for name, module in innermost(backbone).named_modules()
        if hasattr(module, "merged_adapters")
    ]
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:16] if layers else None


def _settings(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a config and, under dotted names, of the configs in it, that may change an embedding."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in NEUTRAL_FIELDS or name.endswith("_token_id"):
            continue
        if isinstance(value, dict) and "model_type" in value:
            found |= {f"{name}.{inner}": setting for inner, setting in _settings(value).items()}
        else:
            found[name] = value
    return found
