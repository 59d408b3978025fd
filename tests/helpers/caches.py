"""Embedding caches filled with rows that are recognized by their numbers."""

from pathlib import Path

import torch
from helpers.builders import build_backbone
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.embeddings.cache import EmbeddingCache


def make_cache(folder: Path, backbone: PreTrainedModel | None = None, **settings: object) -> EmbeddingCache:
    return EmbeddingCache(folder, build_backbone("gpt2") if backbone is None else backbone, **settings)


def make_row(number: int, size: int = 5000) -> Tensor:
    """An embedding of about 20 kB by default, known by its number."""
    return torch.full((1, 2, size // 2), float(number))


def is_complete(cache: EmbeddingCache, count: int, size: int = 5000) -> bool:
    found = cache.get([cache.key([i]) for i in range(count)])
    return all(row is not None and torch.equal(row, make_row(i, size)[0]) for i, row in enumerate(found))
