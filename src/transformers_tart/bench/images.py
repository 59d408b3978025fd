"""Pictures to measure with: seeded, of many sizes, smooth as photographs are."""

from collections.abc import Iterator

import numpy as np
from PIL import Image


SIDES = (96, 384)  # pixels
COARSE = 8


def pictures(seed: int) -> Iterator[Image.Image]:
    """Pictures without end."""
    rng = np.random.default_rng(seed)
    while True:
        width, height = (int(side) for side in rng.integers(*SIDES, size=2))
        coarse = rng.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


__all__ = ["pictures"]
