"""Where the time of classifying goes."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from transformers_tart.bench.timing import Clock, Meter
from transformers_tart.embeddings import media, pooling, text
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


BACKBONE, REST = "backbone", "rest"
# Functions as their callers look them up; what a part calls of another part counts for the other. A forward hook would
# be compiled into the backbone.
TEXT_PARTS: dict[str, tuple[Any, str]] = {
    "tokenizing": (text, "tokenize"),
    BACKBONE: (pooling, "run_backbone"),
    "pooling": (text, "pool_rows"),
    "reasoner": (TartReasoner, "query"),
}
MEDIA_PARTS: dict[str, tuple[Any, str]] = {
    "image processor": (media.MediaEmbedder, "read"),
    BACKBONE: (media, "run_backbone"),
    "pooling": (media.MediaEmbedder, "pool_batch"),
    "reasoner": (TartReasoner, "query"),
}


@dataclass
class Stopwatch:
    """Adds up the time of each part, without that of parts which it calls."""

    meter: Meter
    seconds: dict[str, float] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    since: float = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything inside belongs to this part."""
        self._switch()
        self.running.append(name)
        try:
            yield
        finally:
            self._switch()
            self.running.pop()

    def _switch(self) -> None:
        now = self.meter.now()
        if self.running:
            self.seconds[self.running[-1]] = self.seconds.get(self.running[-1], 0.0) + now - self.since
        self.since = now

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def profile_pipeline(
    classify: TartClassificationPipeline,
    inputs: Sequence[Any],
    repeats: int,
    clock: Clock = time.perf_counter,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    r"""
    Split the time of classifying by the stored support set into parts.

    An accelerator is waited for between the parts.

    Args:
        classify ([`TartClassificationPipeline`]):
            With a support set.
        inputs (`list`):
            What is classified.
        repeats (`int`):
            Counted runs, after one that is not.
        clock (`Callable`, *optional*):
            Seconds.
        progress (`Callable`, *optional*):
            Called after each run.

    Returns:
        `dict[str, list[float]]`: the seconds of each part in each run.
    """
    runs, parts = [], TEXT_PARTS if classify.model.config.modality == "text" else MEDIA_PARTS
    for _ in range(repeats + 1):
        watch = Stopwatch(Meter(clock, classify.model.reasoner.device))
        with ExitStack() as stack:
            for part, (owner, name) in parts.items():
                stack.enter_context(replaced(owner, name, watch.wrap(part, getattr(owner, name))))
            with watch.part(REST):
                classify(inputs)
        progress()
        runs.append(watch.seconds)
    return {part: [run.get(part, 0.0) for run in runs[1:]] for part in (*parts, REST)}


def share_outside(seconds: dict[str, list[float]]) -> float:
    """The share of all that is not the backbone's forward pass, by the medians."""
    medians = {part: median(values) for part, values in seconds.items()}
    return 1 - medians[BACKBONE] / sum(medians.values())


def format_profile(seconds: dict[str, list[float]]) -> str:
    """A line for each part: seconds and share, by the medians."""
    medians = {part: median(values) for part, values in seconds.items()}
    total = sum(medians.values())
    lines = ["| part | s | share |", "|---|---|---|"]
    lines += [f"| {part} | {value:.3g} | {value / total:.1%} |" for part, value in medians.items()]
    lines.append(f"| **all** | {total:.3g} | 100% |")
    return "\n".join(lines) + f"\n\noutside the backbone's forward pass: {share_outside(seconds):.1%}"


__all__ = [
    "BACKBONE",
    "MEDIA_PARTS",
    "REST",
    "TEXT_PARTS",
    "Stopwatch",
    "format_profile",
    "profile_pipeline",
    "share_outside",
]
