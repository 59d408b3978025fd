"""Which cells are compared: those that all compared methods have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.statistics import Estimate, average, estimate


Value = Callable[[Record], float | None]  # what is compared of a record, if it has it


@dataclass(frozen=True)
class Group:
    """The cells of a task and k that every method measured there has.

    Attributes:
        task, k: what the cells share.
        values: of each method, by seed; the seeds are the same.
    """

    task: str
    k: int
    values: dict[str, dict[int, float]]

    def estimate(self, method: str) -> Estimate | None:
        """The mean over the seeds; None for a method that was not measured here."""
        return estimate(list(self.values[method].values())) if method in self.values else None


@dataclass(frozen=True)
class Matched:
    """What is compared of some records.

    Attributes:
        methods: that are compared.
        groups: their cells, by task and k.
        counted: number of cells (task, k, seed) in the groups.
        left_out: number of those that some method lacks.
    """

    methods: tuple[str, ...]
    groups: tuple[Group, ...]
    counted: int
    left_out: int

    @cached_property
    def sizes(self) -> list[int]:
        """Every k."""
        return sorted({group.k for group in self.groups})

    def present(self, sizes: Sequence[int]) -> list[str]:
        """The methods with a cell at any of some k."""
        return [m for m in self.methods if any(m in group.values for group in self.groups if group.k in sizes)]

    def complete(self, sizes: Sequence[int]) -> list[Group]:
        """The groups at some k that have every method which is present at these k."""
        methods = set(self.present(sizes))
        return [group for group in self.groups if group.k in sizes and group.values.keys() >= methods]

    def panels(self) -> list[tuple[list[str], list[int]]]:
        """Tasks of the same sizes, with these sizes: a mean over others would change its tasks along its curve.

        Tasks where a method is missing that others have at the same k are left out, and so are tasks alone in their
        sizes as long as others are not.
        """
        whole = {size: {group.task for group in self.complete([size])} for size in self.sizes}
        sizes_of: dict[str, list[int]] = {}
        for group in self.groups:
            sizes_of.setdefault(group.task, []).append(group.k)
        tasks_of: dict[tuple[int, ...], list[str]] = {}
        for task, sizes in sizes_of.items():
            if all(task in whole[size] for size in sizes):
                tasks_of.setdefault(tuple(sorted(sizes)), []).append(task)
        shared = {sizes: tasks for sizes, tasks in tasks_of.items() if len(tasks) > 1} or tasks_of
        return [(tasks, list(sizes)) for sizes, tasks in sorted(shared.items(), key=lambda item: -len(item[1]))]


def match_cells(records: Sequence[Record], methods: Sequence[str], value: Value) -> Matched:
    r"""
    The cells that can be compared.

    At each task and k these are the seeds that all methods have which were measured there at all: a method that cannot
    read 77 classes or 1024 examples takes part where it can.

    Args:
        records (`list[Record]`):
            All of them.
        methods (`list[str]`):
            The compared ones.
        value (`Callable`):
            What is compared of a record; None for a record that has no such thing.
    """
    found: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for record in records:
        number = value(record) if record.error is None and record.method in methods else None
        if number is not None:
            found.setdefault((record.task, record.k), {}).setdefault(record.method, {})[record.seed] = number
    tasks = list(dict.fromkeys(task for task, _ in found))
    groups, counted, left_out = [], 0, 0
    for task, k in sorted(found, key=lambda place: (tasks.index(place[0]), place[1])):
        cells = found[task, k]
        shared = sorted(set.intersection(*(set(seeds) for seeds in cells.values())))
        counted += len(shared)
        left_out += len(set().union(*cells.values())) - len(shared)
        if shared:
            values = {m: {seed: cells[m][seed] for seed in shared} for m in methods if m in cells}
            groups.append(Group(task, k, values))
    return Matched(tuple(methods), tuple(groups), counted, left_out)


def mean_over_tasks(groups: Sequence[Group], method: str) -> Estimate | None:
    """Mean of a method over groups, all of the same weight; None where some group lacks it."""
    by_task: dict[str, list[dict[int, float]]] = {}
    for group in groups:
        if method not in group.values:
            return None
        by_task.setdefault(group.task, []).append(group.values[method])
    return average(list(by_task.values())) if by_task else None


__all__ = ["Group", "Matched", "Value", "match_cells", "mean_over_tasks"]
