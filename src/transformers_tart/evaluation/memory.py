"""Peak memory of a piece of work."""

import threading
from types import TracebackType

import psutil
import torch


INTERVAL = 0.05  # s between looks at the process


class PeakMemory:
    r"""
    Measures what a piece of work takes at its peak, above what was there before.

    Args:
        device (`torch.device`):
            Where it runs: counted is the allocated memory of a CUDA device, else the resident memory of the process.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.megabytes = 0.0

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            return self
        self._process = psutil.Process()
        self._before = self._peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.megabytes = (torch.cuda.max_memory_allocated(self.device) - self._before) / 1e6
            return
        self._stop.set()
        self._thread.join()
        self.megabytes = (max(self._peak, self._process.memory_info().rss) - self._before) / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._peak = max(self._peak, self._process.memory_info().rss)


__all__ = ["PeakMemory"]
