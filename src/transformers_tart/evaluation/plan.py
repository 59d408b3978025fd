"""Plans of runs, each method on a support set of each task, size and seed; their shares and estimated seconds."""

import itertools
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers.utils import logging

from transformers_tart.evaluation.methods.registry import METHODS, WITHOUT_EXAMPLES, ZERO_SHOT
from transformers_tart.evaluation.records import Key, Record
from transformers_tart.evaluation.tasks import GROUPS, SEEDS, TASKS, Task


logger = logging.get_logger(__name__)
SLACK = 1.01  # of sums of equal numbers, which differ in their last bits with the order


@dataclass(frozen=True)
class Plan:
    """The runs to make: each method on a support set of each task, size and seed."""

    tasks: Sequence[str]  # names, files or folders as [`load_task`] takes them, or names of groups
    methods: Sequence[str]
    sizes: Sequence[int] = (16, 32, 64)  # 0 is a support set without examples
    seeds: Sequence[int] = SEEDS
    sampling: str = "balanced"  # or "natural"
    max_test: int | None = None  # largest number of test inputs of a task
    test_seed: int = 0  # of the draw of test inputs
    per_class: Sequence[int] | None = None  # examples of each class, in place of `sizes`
    columns: Mapping[str, str] = field(default_factory=dict)  # of files, as [`load_task`] takes them

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"Unknown methods {unknown}; choose from {', '.join(METHODS)}.")
        sizes = self._counts
        if not (self.tasks and sizes and self.seeds) or min(sizes) < 0 or (self.per_class is None and 1 in sizes):
            raise ValueError(
                "Give at least one task, one seed, and one k, 0 or 2 and more, or number of examples of each class, "
                "0 or more."
            )
        if self.per_class is not None and self.sampling != "balanced":
            raise ValueError(
                f'With a number of examples of each class, sampling is "balanced", not "{self.sampling}".'
            )

    @property
    def _counts(self) -> Sequence[int]:
        """The numbers of examples, in all or of each class."""
        return self.sizes if self.per_class is None else self.per_class

    @property
    def task_names(self) -> list[str]:
        """The names of the tasks, with groups taken apart, each once however its path is spelled."""
        names = (name for given in self.tasks for name in GROUPS.get(given, (given,)))
        return list({os.path.realpath(name) if os.path.exists(name) else name: name for name in names}.values())

    def check_tasks(self) -> None:
        """Raise a ValueError for tasks that do not exist, before any of them is loaded."""
        absent = [name for name in self.task_names if name not in TASKS and not os.path.exists(name)]
        if absent:
            raise ValueError(
                f"There are no tasks {absent}: no files or folders, and the registry has {', '.join(TASKS)} and the "
                f"groups {', '.join(GROUPS)}."
            )

    def runs(self, tasks: Sequence[Task]) -> "Iterator[Run]":
        """Yield the runs, each once however often it is named.

        Without examples nothing is drawn, so there is one seed, and only the methods that need no example are run.
        """
        seeds, methods = list(dict.fromkeys(self.seeds)), list(dict.fromkeys(self.methods))
        starts = 0 in self._counts
        unshown = [method for method in methods if method in (WITHOUT_EXAMPLES if starts else (ZERO_SHOT,))]
        if starts and len(unshown) < len(methods):
            absent = ", ".join(method for method in methods if method not in unshown)
            logger.warning(f"Without examples these methods are left out, since they need some: {absent}.")
        shown = [method for method in methods if method != ZERO_SHOT]
        for task in tasks:
            for k, per_class in self._sizes_of(task).items():
                drawn, named = (seeds[:1], unshown) if k == 0 else (seeds, shown)
                for seed, method in itertools.product(drawn, named):
                    yield Run(task, k, seed, method, per_class)

    def _sizes_of(self, task: Task) -> dict[int, int | None]:
        """Return the sizes of support sets, each with the number of examples of each class that was asked for."""
        sizes: dict[int, int | None] = {}
        if ZERO_SHOT in self.methods:
            sizes[0] = None if self.per_class is None else 0
        for count in self._counts:
            sizes.setdefault(*((count, None) if self.per_class is None else (task.size_of(count), count)))
        return sizes


def choose_seeds(count: int) -> list[int]:
    """Return the seeds of the published code, and more where those do not suffice."""
    if count < 1:
        raise ValueError(f"The number of seeds is {count}; it must be at least 1.")
    others = (seed for seed in itertools.count() if seed not in SEEDS)
    return list(itertools.islice(itertools.chain(SEEDS, others), count))


class Run(NamedTuple):
    """A method on one support set."""

    task: Task
    k: int
    seed: int
    method: str
    per_class: int | None = None  # examples of each class that were asked for

    @property
    def key(self) -> Key:
        """The key of its record."""
        return self.task.name, self.k, self.seed, self.method


class Durations:
    """Mean seconds of finished runs for each of their inputs, examples and tests, from which others are estimated."""

    def __init__(self, records: Sequence[Record] = ()):
        self._sums: dict[tuple, tuple[float, int]] = {}  # seconds and number of runs
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Count a run, unless it has failed."""
        if record.error is not None:
            return
        spent = (record.seconds - (record.shared_seconds or 0.0)) / (record.test_rows + record.k)
        for kind in _kinds(record.key):
            seconds, count = self._sums.get(kind, (0.0, 0))
            self._sums[kind] = seconds + spent, count + 1

    def estimate(self, run: Run) -> float | None:
        """Return the seconds of a run by those nearest to it, `None` before any has finished.

        Runs of its method, k and task are nearest, then those of its method and k, of its method, and all others.
        """
        for kind in _kinds(run.key):
            if kind in self._sums:
                seconds, count = self._sums[kind]
                return seconds / count * _inputs(run)
        return None

    def total(self, runs: Sequence[Run]) -> float | None:
        """Return the seconds of some runs together, `None` before any has finished."""
        found = [seconds for run in runs if (seconds := self.estimate(run)) is not None]
        return sum(found) if len(found) == len(runs) else None


def _kinds(key: Key) -> tuple[tuple, ...]:
    task, k, _, method = key
    return (method, k, task), (method, k), (method,), ()


def _inputs(run: Run) -> int:
    return len(run.task.test_texts) + run.k


def share(runs: Sequence[Run], durations: Durations, count: int) -> list[list[Run]]:
    """Return the runs of each of some processes, which take about equally long.

    All runs of a task and seed, which share their embeddings, are one process's, unless it would work on them when
    the others have ended.
    """

    def cost(part: Sequence[Run]) -> float:
        seconds = durations.total(part)
        return float(sum(map(_inputs, part))) if seconds is None else seconds

    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.task.name, run.seed), []).append(run)
    most = SLACK * cost(runs) / count
    parts: list[list[Run]] = []
    for group in groups.values():
        parts += [group] if cost(group) <= most else [[run] for run in group]
    shares: list[list[Run]] = [[] for _ in range(count)]
    for part in sorted(parts, key=cost, reverse=True):
        min(shares, key=cost).extend(part)
    places = {run.key: place for place, run in enumerate(runs)}
    return [sorted(own, key=lambda run: places[run.key]) for own in shares]


def in_time(
    runs: Sequence[Run], durations: Durations, deadline: float = math.inf
) -> Iterator[tuple[Run, float | None]]:
    """Yield runs in their order, each with the estimated seconds of all that are left, until a time is over.

    A run that by its estimate ends after the deadline, a time of `time.perf_counter`, is passed over. Where none ends
    before it, the shortest alone is made, so that the same command again and again comes to an end.
    """
    waiting = list(runs)
    while waiting:
        seconds = deadline - time.perf_counter()
        estimates = [durations.estimate(run) or 0.0 for run in waiting]
        place = next((place for place, estimate in enumerate(estimates) if estimate <= seconds), None)
        if place is None:
            if len(waiting) < len(runs):
                return
            place = estimates.index(min(estimates))
        left = durations.total(waiting)
        yield waiting.pop(place), left


def format_seconds(seconds: float) -> str:
    """Return a time in its unit, such as "12 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
