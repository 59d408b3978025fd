"""Peak memory of a block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from transformers_tart.checks.packages import import_package


INTERVAL = 0.05  # seconds between readings of the memory of the process


@dataclass
class PeakMemory:
    """Peak memory of a block above what was in use before: the allocated memory of a CUDA device, else the resident
    memory of the process.
    """

    device: torch.device
    megabytes: float = 0.0

    def __post_init__(self) -> None:
        if self.device.type != "cuda":
            self._process = import_package("psutil", "evaluation", "Measuring the memory of a run").Process()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure a block, also one that raises."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            try:
                yield
            finally:
                self.megabytes = (torch.cuda.max_memory_allocated(self.device) - before) / 1e6
            return
        process, stop = self._process, threading.Event()
        readings = [process.memory_info().rss]

        def read() -> None:
            is_last = False
            while not is_last:
                is_last = stop.wait(INTERVAL)
                readings.append(process.memory_info().rss)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.megabytes = (max(readings) - readings[0]) / 1e6
