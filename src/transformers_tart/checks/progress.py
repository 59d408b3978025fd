"""Progress of work that usually takes no time."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from transformers.utils import logging


T = TypeVar("T")

DELAY = 3  # seconds before progress is shown, on a terminal


def show_progress(items: Iterable[T], activity: str, unit: str = "it") -> Iterator[T]:
    """Yield items; an activity of more than a few seconds has a progress bar, on a terminal."""
    yield from logging.tqdm(items, desc=activity, unit=unit, delay=DELAY, leave=False, disable=None)


__all__ = ["show_progress"]
