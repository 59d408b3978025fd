"""Batches by a budget of tokens, which shrinks where the memory does not suffice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging

from transformers_tart.checks.arguments import as_count
from transformers_tart.embeddings.cache import EmbeddingCache


logger = logging.get_logger(__name__)

# Of a padded batch. A CPU is busy with few tokens and slower once they leave its caches.
CPU_TOKENS = 1024
ACCELERATOR_TOKENS = 16384


@dataclass
class Batcher:
    r"""
    Cuts rows into batches of similar length.

    Args:
        max_tokens (`int`):
            Tokens of a padded batch. Halved whenever the memory does not suffice, for all batches to come.
        max_rows (`int`, *optional*):
            Most rows of a batch.
    """

    max_tokens: int
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if self.max_rows is not None:
            self.max_rows = as_count(self.max_rows, "batch_size", ", or None")

    @classmethod
    def on(cls, device: torch.device, max_rows: int | None = None) -> "Batcher":
        """The budget of a device."""
        return cls(CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS, max_rows)

    def run(
        self,
        lengths: Sequence[int],
        work: Callable[[list[int]], Tensor],
        packed: bool = False,
        alone: Sequence[bool] = (),
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Work on all rows, the longest first, where an error of memory comes early.

        Args:
            lengths (`list[int]`):
                Tokens of each row.
            work (`Callable`):
                From the indices of the rows of a batch to its result.
            packed (`bool`, *optional*, defaults to `False`):
                Whether the rows of a batch stand one after another, without padding.
            alone (`list[bool]`, *optional*):
                Which rows make a batch of their own.

        Yields:
            `tuple`: the indices of the rows, and what `work` made of them.
        """
        order = sorted(range(len(lengths)), key=lambda i: (not (alone and alone[i]), -lengths[i]))
        start, single = 0, sum(alone)
        while start < len(order):
            window = order[start : start + (self.max_rows or self.max_tokens)]
            count = 1 if start < single else self._count([lengths[i] for i in window], packed)
            chosen = order[start : start + count]
            try:
                result = work(chosen)
            except RuntimeError as err:
                if count == 1 or not should_reduce_batch_size(err):
                    raise
                self.max_tokens = max(1, sum(lengths[i] for i in chosen) // 2)
                logger.info(f"Out of memory; batches of {self.max_tokens} tokens from here on.")
            else:
                yield chosen, result
                start += count
                continue
            clear_device_cache(garbage_collection=True)

    def _count(self, lengths: Sequence[int], packed: bool) -> int:
        """How many of the rows that come next fill a batch."""
        total = 0
        for count, length in enumerate(lengths[: self.max_rows]):
            total = total + length if packed else (count + 1) * lengths[0]
            if total > self.max_tokens:
                return max(1, count)
        return len(lengths[: self.max_rows])


def run_batches(
    batcher: Batcher,
    lengths: Sequence[int],
    work: Callable[[list[int]], Tensor],
    packed: bool = False,
    *,
    alone: Sequence[bool] = (),
    cache: EmbeddingCache | None = None,
    keys: Sequence[bytes] = (),
    progress: tqdm | None = None,
) -> Tensor:
    r"""
    Work on all rows that no cache holds, and put everything in the order of the rows.

    Args:
        batcher ([`Batcher`]), lengths (`list[int]`), work (`Callable`), packed (`bool`), alone (`list[bool]`):
            As in [`Batcher.run`]; `work` gives one result (n, ...) a row.
        cache ([`EmbeddingCache`], *optional*), keys (`list[bytes]`):
            Where the results of rows are looked up first, and kept batch by batch, under a key a row.
        progress (`tqdm`, *optional*):
            Told of every row that is done.

    Returns:
        `torch.Tensor` of shape `(rows, ...)`: on the device where `work` leaves its results.
    """
    found = cache.get(keys) if cache is not None else [None] * len(lengths)
    missing = [i for i, row in enumerate(found) if row is None]
    order = [i for i, row in enumerate(found) if row is not None]
    results = [torch.stack([row for row in found if row is not None])] if order else []
    if progress is not None:
        progress.update(len(order))
    own = [alone[i] for i in missing] if alone else ()
    batches = batcher.run([lengths[i] for i in missing], lambda c: work([missing[j] for j in c]), packed, own)
    for chosen, result in batches:
        rows = [missing[j] for j in chosen]
        if cache is not None:
            cache.put([keys[i] for i in rows], result)
        order += rows
        results.append(result)
        if progress is not None:
            progress.update(len(rows))
    together = torch.cat([result.to(results[-1].device) for result in results])
    return torch.empty_like(together).index_copy_(0, torch.tensor(order, device=together.device), together)


def move(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch on a device; to accelerators it travels while they compute."""
    if device.type == "cpu":
        return batch
    pinned = device.type == "cuda"
    return {
        name: (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)
        for name, tensor in batch.items()
    }


__all__ = ["Batcher", "move", "run_batches"]
