"""The results that a report compares: metrics, methods, and the runs that all compared methods have."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.statistics import Estimate, average


PER_CLASS = "of each class"


@dataclass(frozen=True)
class MetricFormat:
    """The display of a metric."""

    name: str  # in the records and on the Hub
    title: str
    unit: str = ""
    higher_is_better: bool = True
    factor: float = 1.0  # from the records to the display
    digits: int = 3

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def difference_unit(self) -> str:
        """Unit of a difference."""
        return "points" if self.unit == "%" else self.unit

    def value(self, record: Record) -> float | None:
        """Return the metric of a record, `None` if the record lacks it."""
        return record.metrics.get(self.name)


METRIC_FORMATS = {
    metric.name: metric
    for metric in (
        MetricFormat("accuracy", "Accuracy", "%", factor=100, digits=1),
        MetricFormat("macro_f1", "Macro F1", "%", factor=100, digits=1),
        MetricFormat("matthews_correlation", "Matthews correlation"),
        MetricFormat("log_loss", "Log loss", "nats", higher_is_better=False),
        MetricFormat("brier_score", "Brier score", higher_is_better=False),
        MetricFormat("calibration_error", "Expected calibration error", "%", False, factor=100, digits=1),
    )
}


@dataclass(frozen=True)
class Group:
    """Values of a task and k: for each method measured there, by the same seeds."""

    task: str
    k: int
    values: dict[str, dict[int, float]]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(next(iter(self.values.values())))


@dataclass(frozen=True)
class Matched:
    """The compared runs."""

    methods: tuple[str, ...]
    groups: tuple[Group, ...]
    counted: int  # number of compared support sets (task, k, seed)
    left_out: int  # number of support sets on which some method of the same task and k was not measured

    @cached_property
    def sizes(self) -> list[int]:
        """Sizes of the support sets."""
        return sorted({group.k for group in self.groups})

    @cached_property
    def sizes_of(self) -> dict[str, list[int]]:
        """Sizes of the support sets of each task."""
        sizes = defaultdict(list)
        for group in self.groups:
            sizes[group.task].append(group.k)
        return sizes

    def complete(self, k: int) -> list[Group]:
        """Return the groups at this k that have every method measured at it."""
        groups = [group for group in self.groups if group.k == k]
        methods = set().union(*(group.values for group in groups))
        return [group for group in groups if group.values.keys() >= methods]

    def panels(self) -> list[tuple[list[str], list[int]]]:
        """Return tasks of the same sizes with these sizes, so that a mean has the same tasks at each k.

        Tasks that lack a method which others have at the same k are left out. So is a task with sizes of its own,
        unless all tasks are like that.
        """
        complete = {k: {group.task for group in self.complete(k)} for k in self.sizes}
        tasks_of = defaultdict(list)
        for task, sizes in self.sizes_of.items():
            if all(task in complete[k] for k in sizes):
                tasks_of[tuple(sizes)].append(task)
        shared = {sizes: tasks for sizes, tasks in tasks_of.items() if len(tasks) > 1} or tasks_of
        return [(tasks, list(sizes)) for sizes, tasks in sorted(shared.items(), key=lambda item: -len(item[1]))]

    def mean(self, method: str, tasks: Sequence[str], k: int) -> Estimate | None:
        """Return a method's mean over tasks at a k, `None` where one of them lacks it."""
        return mean_over_tasks([group for group in self.groups if group.task in tasks and group.k == k], method)


def match_runs(records: Sequence[Record], methods: Sequence[str], value: Callable[[Record], float | None]) -> Matched:
    """Select the comparable runs: at each task and k, the seeds that all methods measured there have in common.

    A method that cannot read 77 classes or 1024 examples is compared at the other tasks and k.
    """
    found: dict[str, dict[int, dict[str, dict[int, float]]]] = {}
    for record in records:
        number = value(record) if record.error is None and record.method in methods else None
        if number is not None:
            by_method = found.setdefault(record.task, {}).setdefault(record.k, {})
            by_method.setdefault(record.method, {})[record.seed] = number
    groups, counted, left_out = [], 0, 0
    for task, by_size in found.items():
        for k, by_method in sorted(by_size.items()):
            shared = sorted(set.intersection(*map(set, by_method.values())))
            counted += len(shared)
            left_out += len(set().union(*by_method.values())) - len(shared)
            if shared:
                ordered = [method for method in methods if method in by_method]
                values = {method: {seed: by_method[method][seed] for seed in shared} for method in ordered}
                groups.append(Group(task, k, values))
    return Matched(tuple(methods), tuple(groups), counted, left_out)


def mean_over_tasks(groups: Sequence[Group], method: str) -> Estimate | None:
    """Return a method's mean over the tasks of one k, `None` where a task lacks the method."""
    if not groups or any(method not in group.values for group in groups):
        return None
    return average([group.values[method] for group in groups])


def choose_reference(methods: Sequence[str], reference: str | None = None) -> str:
    """Return the method that others are compared with: by default the first whose name begins with "tart", if any."""
    if reference is None:
        return next((method for method in methods if method.lower().startswith("tart")), methods[0])
    if reference not in methods:
        raise ValueError(f"The method {reference!r} was not measured; these were: {', '.join(methods)}.")
    return reference


@dataclass(frozen=True)
class Comparison:
    """The subject of a report."""

    records: Sequence[Record]  # all records
    methods: list[str]  # methods that succeeded at least once
    reference: str  # the method that the others are compared with
    metrics: list[MetricFormat]  # the reported metrics; the first is plotted
    size: str = "k"  # name of the size of a support set

    @classmethod
    def of(
        cls, records: Sequence[Record], reference: str | None = None, metrics: Sequence[str] | None = None
    ) -> "Comparison":
        """Choose what to compare: by default the first TART method with all others, by all measured metrics.

        Where all runs were made for a number of examples of each class, it takes the place of k.
        """
        methods = list(dict.fromkeys(record.method for record in records if record.error is None))
        if not methods:
            errors = [record.error for record in records]
            raise ValueError(f"All {len(errors)} runs failed, the first with: {errors[0]}" if errors else "No runs.")
        measured = [name for name in METRIC_FORMATS if any(name in record.metrics for record in records)]
        chosen = measured if metrics is None else metrics
        if missing := [name for name in chosen if name not in measured]:
            raise ValueError(f"Not measured: {', '.join(missing)}; the results have {', '.join(measured)}.")
        if not chosen:
            raise ValueError(f"The results have none of the metrics {', '.join(METRIC_FORMATS)}.")
        size, formats = "k", [METRIC_FORMATS[name] for name in chosen]
        if all(record.per_class is not None for record in records):
            size, records = PER_CLASS, [replace(record, k=record.per_class or 0) for record in records]
        return cls(records, methods, choose_reference(methods, reference), formats, size)

    def match(self, metric: MetricFormat) -> Matched:
        """Return the runs that are compared in a metric."""
        return match_runs(self.records, self.methods, metric.value)
