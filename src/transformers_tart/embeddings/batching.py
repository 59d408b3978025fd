"""Batches by a budget of tokens, halved on out-of-memory."""

from collections.abc import Callable, Collection, Iterator, Sequence
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
    """Batches of rows of similar length."""

    max_tokens: int  # of a padded batch; halved on out-of-memory, for all batches to come
    max_rows: int | None = None
    progress: tqdm | None = None  # bar that every row advances

    def __post_init__(self) -> None:
        if self.max_rows is not None:
            self.max_rows = as_count(self.max_rows, "batch_size", ", or None")

    @classmethod
    def on(cls, device: torch.device, max_rows: int | None = None, progress: tqdm | None = None) -> "Batcher":
        """Return a batcher with the budget of a device."""
        return cls(CPU_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS, max_rows, progress)

    def run(
        self,
        lengths: Sequence[int],
        work: Callable[[list[int]], Tensor],
        packed: bool = False,
        members: Sequence[int] | None = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Work on rows, `packed` ones without padding; yield indices and results."""
        # the longest first, so that out-of-memory comes early
        order = sorted(range(len(lengths)) if members is None else members, key=lambda i: -lengths[i])
        start = 0
        while start < len(order):
            window = order[start : start + (self.max_rows or self.max_tokens)]
            chosen = window[: self._count([lengths[i] for i in window], packed)]
            try:
                result = work(chosen)
            except RuntimeError as err:
                if len(chosen) == 1 or not should_reduce_batch_size(err):
                    raise
                self.max_tokens = max(1, sum(lengths[i] for i in chosen) // 2)
                logger.info(f"Out of memory; batches of {self.max_tokens} tokens from here on.")
            else:
                yield chosen, result
                start += len(chosen)
                continue
            clear_device_cache(garbage_collection=True)

    def _count(self, lengths: Sequence[int], packed: bool) -> int:
        """Return the number of rows, of those that come next, that fill a batch."""
        total = 0
        for count, length in enumerate(lengths):
            total = total + length if packed else (count + 1) * lengths[0]
            if total > self.max_tokens:
                return max(1, count)
        return len(lengths)


def run_batches(
    batcher: Batcher,
    lengths: Sequence[int],
    work: Callable[[list[int]], Tensor],
    packed: bool = False,
    *,
    alone: Collection[int] = (),
    split: Callable[[list[int]], list[list[int]]] | None = None,
    cache: EmbeddingCache | None = None,
    keys: Sequence[bytes] = (),
) -> Tensor:
    """Work on all rows that are not in the cache, and return the results (rows, ...) in the order of the rows.

    Each row of `alone` makes a batch of its own; `split` divides rows into groups whose batches are separate. Of rows
    with one key, the first is worked on.
    """
    found = cache.get(keys) if cache is not None else [None] * len(lengths)
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    sources = [first[key] for key in keys] if cache is not None else list(range(len(lengths)))
    missing = [i for i, row in enumerate(found) if row is None and sources[i] == i]
    order = [i for i, row in enumerate(found) if row is not None and sources[i] == i]
    results = [torch.stack([row for i in order if (row := found[i]) is not None])] if order else []
    progress = tqdm(disable=True) if batcher.progress is None else batcher.progress
    progress.update(len(lengths) - len(missing))
    apart = [[i] for i in missing if i in alone]
    together = [i for i in missing if i not in alone]
    for group in [*apart, *([together] if split is None else split(together))]:
        for chosen, result in batcher.run(lengths, work, packed, group):
            if cache is not None:
                cache.put([keys[i] for i in chosen], result)
            order += chosen
            results.append(result)
            progress.update(len(chosen))
    joined = torch.cat([result.to(results[-1].device) for result in results])
    places = {i: place for place, i in enumerate(order)}
    return joined[torch.tensor([places[i] for i in sources], device=joined.device)]


def move(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch to a device, to accelerators while they compute."""
    if device.type == "cpu":
        return batch
    pinned = device.type == "cuda"
    return {
        name: (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)
        for name, tensor in batch.items()
    }
