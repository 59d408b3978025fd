"""Inputs of benchmarks, drawn from a seed: sentences without the label words of the published prompts, and images."""

import itertools
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


SUBJECTS = _phrases(
    "the old teacher|my neighbor|a young doctor|the last train|our garden|the small shop|her dog|a quiet river|"
    "the evening news|the second film|this phone|the service|his brother|the weather"
)
VERBS = _phrases(
    "waits for|remembers|follows|changes|opens|brings back|leaves behind|looks at|misses|pays for|talks about|"
    "works with|hardly notices|asks for"
)
OBJECTS = _phrases(
    "the green door|a cup of tea|the long road home|nothing at all|an empty house|the first page|two large boxes|"
    "a better answer|the broken window|some fresh bread|the whole story|a new ticket"
)
ENDINGS = _phrases(
    "in the morning|without a word|because it rained|as usual|for the third time|near the station|"
    "while others sleep|on a cold day|until late at night|with great care||"
)
SIDES = (96, 384)  # pixels
COARSE_SIDE = 8


def sentences(seed: int) -> Iterator[str]:
    """Yield sentences without end."""
    draw = random.Random(seed)
    while True:
        words = " ".join(draw.choice(parts) for parts in (SUBJECTS, VERBS, OBJECTS, ENDINGS)).strip()
        yield f"{words.capitalize()}."


def texts(seed: int, min_words: int, max_words: int) -> Iterator[str]:
    """Yield texts without end, of `min_words` to `max_words` words."""
    draw, source = random.Random(f"lengths {seed}"), sentences(seed)
    while True:
        count, words = draw.randint(min_words, max_words), list[str]()
        while len(words) < count:
            words += next(source).split()
        yield " ".join(words[:count])


def draw_texts(count: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Return the first `count` of [`texts`]."""
    return list(itertools.islice(texts(seed, min_words, max_words), count))


def images(seed: int) -> Iterator[Image.Image]:
    """Yield images without end, of many sizes and as smooth as photographs."""
    rng = np.random.default_rng(seed)
    while True:
        width, height = (int(side) for side in rng.integers(*SIDES, size=2))
        coarse = rng.integers(0, 256, (COARSE_SIDE, COARSE_SIDE, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


__all__ = ["draw_texts", "images", "sentences", "texts"]
