"""Schedules of runs: estimates of their seconds, the share of each process, and what fits into a time."""

import math
import time
from collections.abc import Iterator, Sequence

from transformers_tart.evaluation.plan import Run
from transformers_tart.evaluation.records import Key, Record


SLACK = 1.01  # of sums of equal numbers, which differ in their last bits with the order


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
