"""Plain sentences to measure with: seeded, of any length, without the label words of the published prompts."""

import itertools
import random
from collections.abc import Iterator


SUBJECTS = (
    *(
        "the old teacher",
        "my neighbor",
        "a young doctor",
        "the last train",
        "our garden",
        "the small shop",
        "her dog",
    ),
    *(
        "a quiet river",
        "the evening news",
        "the second film",
        "this phone",
        "the service",
        "his brother",
        "the weather",
    ),
)
VERBS = (
    *("waits for", "remembers", "follows", "changes", "opens", "brings back", "leaves behind", "looks at", "misses"),
    *("pays for", "talks about", "works with", "hardly notices", "asks for"),
)
OBJECTS = (
    *("the green door", "a cup of tea", "the long road home", "nothing at all", "an empty house", "the first page"),
    *(
        "two large boxes",
        "a better answer",
        "the broken window",
        "some fresh bread",
        "the whole story",
        "a new ticket",
    ),
)
ENDINGS = (
    *("in the morning", "without a word", "because it rained", "as usual", "for the third time", "near the station"),
    *("while others sleep", "on a cold day", "until late at night", "with great care", "", ""),
)


def sentences(seed: int) -> Iterator[str]:
    """Sentences without end."""
    draw = random.Random(seed)
    while True:
        words = " ".join(draw.choice(parts) for parts in (SUBJECTS, VERBS, OBJECTS, ENDINGS)).strip()
        yield f"{words.capitalize()}."


def texts(seed: int, min_words: int, max_words: int) -> Iterator[str]:
    """Texts without end, each of a number of words between the two."""
    draw, source = random.Random(f"lengths {seed}"), sentences(seed)
    while True:
        count, words = draw.randint(min_words, max_words), list[str]()
        while len(words) < count:
            words += next(source).split()
        yield " ".join(words[:count])


def draw_texts(count: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """The first `count` of these texts."""
    return list(itertools.islice(texts(seed, min_words, max_words), count))


__all__ = ["draw_texts", "sentences", "texts"]
