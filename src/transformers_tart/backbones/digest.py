"""Digests of backbones: sampled weights, by which a task recognizes the backbone that its support set was made with.

A digest holds sampled values instead of a hash, so that the same weights in another dtype are still recognized.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import innermost
from transformers_tart.backbones.settings import differing_settings, settings_of
from transformers_tart.loading.report import UNREAD


SAMPLES = 1375  # of each tensor: finds a change of 1% of its elements with probability 1 - 1e-6
COMPILED = "_orig_mod."
GLANCES = 64  # elements of each tensor, by which a change is seen that autograd does not count


@dataclass(frozen=True)
class Weight:
    """A tensor of a backbone.

    Attributes:
        name: its name in the state dict.
        dtype: its dtype, without `torch.`.
        shape: its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_samples(self) -> int:
        """Number of sampled elements."""
        return min(SAMPLES, torch.Size(self.shape).numel())


@dataclass(frozen=True, eq=False)
class BackboneDigest:
    r"""
    Sampled weights of a backbone, and what is loaded on it.

    Args:
        name (`str`, *optional*):
            Hub id or folder from which the backbone was loaded.
        weights (`tuple` of [`Weight`]):
            Its tensors, in the order of their names.
        samples (`dict[str, torch.Tensor]`):
            For each dtype, the sampled values of the tensors of that dtype, one after another, on the CPU.
        adapters (`str`, *optional*):
            Hash of the state of peft adapters: which are active, merged and disabled. `None` without adapters.
        quantization (`str`, *optional*):
            Quantization method, `None` without.
        unchecked (`int`, *optional*, defaults to 0):
            Number of entries of the state dict that cannot be read, such as weights that are offloaded elsewhere.
        settings (`dict`, *optional*):
            What its config says that may change an embedding.
    """

    name: str | None
    weights: tuple[Weight, ...]
    samples: dict[str, Tensor]
    adapters: str | None = None
    quantization: str | None = None
    unchecked: int = 0
    settings: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, backbone: PreTrainedModel) -> "BackboneDigest":
        """Sample the weights of a backbone, on any device; offloaded weights are read from where they are."""
        weights, values, unchecked = [], [], 0
        for name, tensor in sorted(_named_tensors(backbone), key=lambda item: item[0]):
            if tensor is None:
                unchecked += 1
                continue
            weights.append(Weight(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
            values.append(_sample(tensor))
        by_dtype: dict[str, list[Tensor]] = {}
        for weight, value in zip(weights, values, strict=True):
            by_dtype.setdefault(weight.dtype, []).append(value)
        samples = {dtype: _gather(parts) for dtype, parts in by_dtype.items()}
        return cls(
            backbone.name_or_path or None,
            tuple(weights),
            samples,
            _adapter_state(backbone),
            _quantization(backbone),
            unchecked,
            settings_of(backbone.config),
        )

    @property
    def hexdigest(self) -> str:
        """First 12 hexadecimal digits of a SHA-256 of the digest, for messages."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode())
        for _, values in sorted(self.samples.items()):
            digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]

    def differences(self, other: "BackboneDigest") -> list[str]:
        """Describe in what another backbone differs; an empty list where it is the same up to the dtype.

        Values are equal bit for bit in one dtype, and within the rounding of the coarser of two dtypes. Backbones that
        are quantized in different ways cannot be compared, and no difference is reported.
        """
        if not self.is_comparable(other):
            return []
        found = []
        if self.settings and other.settings and (fields := differing_settings(self.settings, other.settings)):
            found.append(f"other settings in its config: {', '.join(fields)}")
        if self.adapters != other.adapters:
            found.append("other adapters are loaded or active")
        own, given = dict(self._values()), dict(other._values())
        if missing := sorted(own.keys() ^ given.keys()):
            found.append(f"{len(missing)} weights are in one only, such as {missing[0]}")
        common = sorted(own.keys() & given.keys())
        changed = [name for name in common if not _are_same(own[name], given[name])]
        if changed:
            found.append(f"{len(changed)} of {len(common)} weights differ, such as {changed[0]}")
        return found

    def is_comparable(self, other: "BackboneDigest") -> bool:
        """Return whether both backbones are quantized in the same way, or neither is."""
        return self.quantization == other.quantization

    def tensors(self) -> dict[str, Tensor]:
        """Return what a safetensors file stores of the digest, beside [`BackboneDigest.facts`]."""
        return {f"backbone.{dtype}": values for dtype, values in self.samples.items()}

    def facts(self) -> dict[str, Any]:
        """Return what the metadata of a file stores of the digest, as JSON has it: no name, which may be a path."""
        return {
            "weights": [[weight.name, weight.dtype, list(weight.shape)] for weight in self.weights],
            "adapters": self.adapters,
            "quantization": self.quantization,
            "unchecked": self.unchecked,
            "settings": self.settings,
        }

    @classmethod
    def from_file(cls, facts: dict[str, Any], tensors: dict[str, Tensor]) -> "BackboneDigest":
        """Build a digest from what a file stores.

        Raises:
            ValueError, TypeError, KeyError: When it stores something else.
        """
        weights = tuple(Weight(str(n), str(d), tuple(int(size) for size in s)) for n, d, s in facts["weights"])
        samples = {dtype: tensors[f"backbone.{dtype}"] for dtype in {weight.dtype for weight in weights}}
        for dtype, values in samples.items():
            expected = sum(weight.num_samples for weight in weights if weight.dtype == dtype)
            if values.shape != (expected,):
                raise ValueError(f"the digest of the backbone has {tuple(values.shape)} samples, not {expected}")
        adapters, quantization = (facts.get(field) for field in ("adapters", "quantization"))
        for value in (adapters, quantization):
            if not isinstance(value, str | None):
                raise TypeError(f"the digest of the backbone holds {value!r} in place of a string")
        settings = facts.get("settings")
        if not isinstance(settings, dict | None):
            raise TypeError(f"the digest of the backbone holds {settings!r} in place of settings")
        return cls(None, weights, samples, adapters, quantization, int(facts.get("unchecked", 0)), settings)

    def _values(self) -> Iterator[tuple[str, tuple[Weight, Tensor]]]:
        start = dict.fromkeys(self.samples, 0)
        for weight in self.weights:
            begin = start[weight.dtype]
            start[weight.dtype] = end = begin + weight.num_samples
            yield weight.name, (weight, self.samples[weight.dtype][begin:end])


def state_token(model: PreTrainedModel) -> tuple[object, ...]:
    """Return a value that changes when weights, buffers, adapters or the config of a model change, at little cost.

    Of weights that are changed around autograd (`parameter.data.add_(...)`) a few elements are looked at, which tells
    when most of a weight is changed; digests see smaller changes.
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


def _named_tensors(backbone: PreTrainedModel) -> Iterator[tuple[str, Tensor | None]]:
    """The plain tensors of a state dict; `None` for what cannot be read."""
    for name, value in backbone.state_dict().items():
        short = name.replace(COMPILED, "")
        if short.startswith(f"{UNREAD}."):
            continue
        if isinstance(value, Tensor) and value.device.type == "meta":
            value = _offloaded(backbone, name)
        for path, tensor in plain_tensors(short, value):
            yield path, tensor.detach() if isinstance(tensor, Tensor) else None


def plain_tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield an entry of a state dict itself, or the tensors that a quantized weight is made of."""
    if hasattr(value, "__tensor_flatten__"):
        for part in value.__tensor_flatten__()[0]:
            yield from plain_tensors(f"{name}.{part}", getattr(value, part))
    else:
        yield name, value


def _offloaded(backbone: PreTrainedModel, name: str) -> Tensor | None:
    """A weight that accelerate keeps on the CPU or on disk until it is needed."""
    path, _, leaf = name.rpartition(".")
    hook = getattr(backbone.get_submodule(path), "_hf_hook", None)
    for one in getattr(hook, "hooks", [hook]):
        weights_map = getattr(one, "weights_map", None)
        if weights_map is not None:
            return weights_map[leaf]
    return None


@functools.lru_cache(maxsize=256)
def _indices(numel: int) -> Tensor:
    generator = torch.Generator().manual_seed(numel)
    return torch.randint(numel, (SAMPLES,), generator=generator)


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat if len(flat) <= SAMPLES else flat[_indices(len(flat)).to(flat.device)]


def _gather(parts: Sequence[Tensor]) -> Tensor:
    """The values of one dtype on the CPU, with one transfer a device."""
    by_device: dict[torch.device, list[int]] = {}
    for i, part in enumerate(parts):
        by_device.setdefault(part.device, []).append(i)
    found: dict[int, Tensor] = {}
    for members in by_device.values():
        together = torch.cat([parts[i] for i in members]).cpu()
        found.update(zip(members, together.split([len(parts[i]) for i in members]), strict=True))
    return torch.cat([found[i] for i in range(len(parts))])


def _are_same(own: tuple[Weight, Tensor], given: tuple[Weight, Tensor]) -> bool:
    """Whether two weights have one shape, and samples that are equal or differ by the rounding of a dtype."""
    (own_weight, a), (given_weight, b) = own, given
    if own_weight.shape != given_weight.shape:
        return False
    if own_weight.dtype == given_weight.dtype:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8)) if a.dim() else torch.equal(a, b)
    if not (a.dtype.is_floating_point and b.dtype.is_floating_point):
        return False
    infos = torch.finfo(a.dtype), torch.finfo(b.dtype)
    a, b = a.double(), b.double()
    largest = min(info.max for info in infos)
    size = torch.maximum(a.abs(), b.abs())
    # one unit in the last place, since the values may have been rounded twice; and the step between subnormal values
    tolerance = max(info.eps for info in infos) * size + max(info.tiny * info.eps for info in infos)
    return bool((((a - b).abs() <= tolerance) | ((size > largest) & (a.sign() == b.sign())) | (a == b)).all())


def _adapter_state(backbone: nn.Module) -> str | None:
    """Hash of which adapters of peft are active, merged and disabled in which layers."""
    fields = ("active_adapters", "merged_adapters", "scaling", "disable_adapters")
    layers = [
        (name, *(str(getattr(module, field, None)) for field in fields))
        for name, module in innermost(backbone).named_modules()
        if hasattr(module, "merged_adapters")
    ]
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:16] if layers else None


def _quantization(backbone: PreTrainedModel) -> str | None:
    config = getattr(backbone.config, "quantization_config", None)
    if config is None:
        return None
    method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
    return str(getattr(method, "value", method))


__all__ = ["BackboneDigest", "Weight", "plain_tensors", "state_token"]
