"""Peak memory of a block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


INTERVAL = 0.05  # seconds between readings of the memory of the process


@dataclass
class PeakMemory:
    """Peak memory of a block above what was in use before: the allocated memory of a CUDA device, else the resident
    memory of the process."""

    device: torch.device
    megabytes: float = 0.0

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
        import psutil

        process, stop = psutil.Process(), threading.Event()
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
