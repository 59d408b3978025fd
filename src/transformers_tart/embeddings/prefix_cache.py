"""A prompt that has been read once, and that any number of continuations attend to without a copy of their own."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values, each (batch, heads, length, head_dim), of what has been read: one pair a layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def from_cache(cls, cache: Cache | None) -> "PrefixCache":
        """What a cache holds after a forward pass.

        Raises:
            TypeError: When the backbone does not use the cache, or keeps something else in it.
        """
        if cache is None or not cache.layers or not all(type(layer) is DynamicLayer for layer in cache.layers):
            raise TypeError("The backbone does not keep the keys and values of every token in this cache.")
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))  # type: ignore[union-attr, misc]

    @property
    def length(self) -> int:
        """Tokens of the prefix."""
        return self.layers[0][0].shape[-2]

    def cut(self, length: int) -> "PrefixCache":
        """The first tokens, as a view."""
        return PrefixCache(tuple((keys[..., :length, :], values[..., :length, :]) for keys, values in self.layers))

    @property
    def nbytes(self) -> int:
        """Bytes of all layers, each row of a batch counted."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    def expand(self, rows: int) -> "PrefixCache":
        """The prefix of one row for each row of a batch, without copies."""
        return PrefixCache(tuple((k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in self.layers))

    def select(self, rows: Tensor) -> "PrefixCache":
        """The prefixes of chosen rows (n,) of a batch."""
        return PrefixCache(tuple((k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.layers))

    def to(self, device: torch.device | str) -> "PrefixCache":
        """The same prefix on another device."""
        return PrefixCache(tuple((keys.to(device), values.to(device)) for keys, values in self.layers))

    def cache(self) -> Cache:
        """A cache that gives this prefix to every row of a batch and keeps nothing of what comes after."""
        return Cache(layers=[_filled(_SharedLayer(), keys, values) for keys, values in self.layers])

    def growing_cache(self) -> Cache:
        """A cache that begins with this prefix, which itself stays as it is, and keeps what comes after."""
        return Cache(layers=[_filled(DynamicLayer(), keys, values) for keys, values in self.layers])


class _SharedLayer(DynamicLayer):
    """Puts the prefix before the keys and values of a pass, and stays as it is."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple:
        rows = (len(key_states), -1, -1, -1)
        keys, values = self.keys.expand(rows), self.values.expand(rows)  # type: ignore[union-attr]
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def _filled(layer: DynamicLayer, keys: Tensor, values: Tensor) -> DynamicLayer:
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


__all__ = ["PrefixCache"]
