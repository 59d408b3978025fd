"""Keys and values that a model keeps of a prefix, for any number of continuations without copies of their own."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values of each layer, (batch, heads, length, head_dim) each."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def from_cache(cls, cache: Cache | None) -> "PrefixCache":
        """Take the keys and values of a cache after a forward pass; raise a TypeError when it holds something else."""
        if cache is None or not cache.layers or not all(type(layer) is DynamicLayer for layer in cache.layers):
            raise TypeError("The backbone does not keep the keys and values of every token in this cache.")
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))  # type: ignore[union-attr, misc]

    @property
    def length(self) -> int:
        """The number of tokens of the prefix."""
        return self.layers[0][0].shape[-2]

    @property
    def nbytes(self) -> int:
        """The number of bytes of all layers, each row of a batch counted."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def expand(self, rows: int) -> "PrefixCache":
        """Repeat the prefix of one row for each row of a batch, without copies."""
        return self._map(lambda tensor: tensor.expand(rows, -1, -1, -1))

    def select(self, rows: Tensor) -> "PrefixCache":
        """Return the prefixes of chosen rows (n,) of a batch."""
        return self._map(lambda tensor: tensor.index_select(0, rows))

    def cache(self) -> Cache:
        """Return a cache that puts this prefix before every row of a batch and keeps nothing of what follows."""
        return self._fill(_SharedLayer)

    def growing_cache(self) -> Cache:
        """Return a cache that begins with this prefix, without changing it, and keeps what follows."""
        return self._fill(DynamicLayer)

    def _fill(self, kind: type[DynamicLayer]) -> Cache:
        layers: list[Any] = [kind() for _ in self.layers]
        for layer, (keys, values) in zip(layers, self.layers, strict=True):
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
        return Cache(layers=layers)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "PrefixCache":
        return PrefixCache(tuple((change(keys), change(values)) for keys, values in self.layers))


class _SharedLayer(DynamicLayer):
    """A layer that puts the prefix before the keys and values of a forward pass, and does not grow."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple:
        rows = (len(key_states), -1, -1, -1)
        keys, values = self.keys.expand(rows), self.values.expand(rows)  # type: ignore[union-attr]
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def innermost(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers, such as those of peft, whose `forward` takes `*args, **kwargs`."""
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()  # type: ignore[operator]
    return model


def cache_argument(model: nn.Module) -> str:
    """Return the name of the KV cache among the arguments of a forward pass and in its output."""
    # "past_key_values" in code written before transformers 5.24
    return "cache" if accepts(model, "cache") else "past_key_values"


def accepts(backbone: nn.Module, argument: str) -> bool:
    """Return whether the forward pass of a backbone takes an argument of this name."""
    return argument in inspect.signature(innermost(backbone).forward).parameters
