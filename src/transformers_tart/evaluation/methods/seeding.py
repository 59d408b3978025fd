"""Randomness of a method, which is its own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Everything that is random inside the block follows from the seed; afterwards all generators are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.accelerator.device_count())):
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


__all__ = ["seeded"]
