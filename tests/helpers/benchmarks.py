"""A tiny workload, a fake clock, and comparisons of made-up functions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config

from transformers_tart.bench import workload
from transformers_tart.bench.timing import Comparison, Meter
from transformers_tart.bench.workload import Workload


TINY = Workload(k=18, queries=5, naive_queries=2, backbone="random:tiny")


@pytest.fixture(autouse=True)
def _tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048, "vocab_size": 8192}
    monkeypatch.setitem(workload.RANDOM, "tiny", lambda: GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


class FakeClock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def compare(naive: Callable[[Meter], torch.Tensor], ours: Callable[[], torch.Tensor], **fields: Any) -> Comparison:
    """A comparison of two functions that give one row."""
    facts = {"rows": [0], "size": 1, "model": "made", "dtype": torch.float32}
    return Comparison(naive=naive, ours=ours, **{**facts, **fields})


def constant(value: float, rows: int = 1) -> Callable[..., torch.Tensor]:
    return lambda *_: torch.full((rows, 2), value)
