"""The tables of a report, in markdown."""

from collections.abc import Sequence
from statistics import fmean

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.display import NOTHING, Metric, code, plain, table, write_seeds
from transformers_tart.evaluation.report.matching import Group, Matched, match_cells, mean_over_tasks
from transformers_tart.evaluation.report.statistics import Estimate, average, paired_test, wins_ties_losses


TART = "tart"


def list_methods(records: Sequence[Record]) -> list[str]:
    """All methods, in the order in which they first succeeded."""
    return list(dict.fromkeys(record.method for record in records if record.error is None))


def choose_reference(methods: Sequence[str], reference: str | None = None) -> str:
    r"""
    The method that the others are compared with.

    Args:
        methods (`list[str]`):
            All of them.
        reference (`str`, *optional*):
            Its name; the first one that begins with "tart" when not given, or the first.

    Raises:
        ValueError: When there is no such method.
    """
    if reference is None:
        return next((method for method in methods if method.lower().startswith(TART)), methods[0])
    if reference not in methods:
        raise ValueError(f"The method {reference!r} was not measured; these were: {', '.join(methods)}.")
    return reference


def _estimates(metric: Metric, found: Sequence[Estimate | None]) -> list[str]:
    """A row of means, the best of them in bold: all that look alike."""
    written = [metric.write_estimate(one) for one in found]
    shown = [None if one is None else float(metric.write(one.mean)) for one in found]
    known = [number for number in shown if number is not None]
    if len(known) < 2:
        return written
    best = max(known) if metric.higher_is_better else min(known)
    return [
        text.replace(text.split(" ")[0], f"**{text.split(' ')[0]}**", 1) if number == best else text
        for text, number in zip(written, shown, strict=True)
    ]


def format_tasks(matched: Matched, metric: Metric) -> str:
    """Mean and interval over the seeds, for each task and k."""
    rows = [
        [plain(group.task), str(group.k), str(_seed_count(group))]
        + _estimates(metric, [group.estimate(method) for method in matched.methods])
        for group in matched.groups
    ]
    return table([metric.label, "k", "seeds", *map(plain, matched.methods)], rows)


def _seed_count(group: Group) -> int:
    return len(next(iter(group.values.values())))


def _mean_row(matched: Matched, metric: Metric, sizes: list[int], title: str) -> list[str]:
    groups = matched.complete(sizes)
    count = len({group.task for group in groups})
    tasks = "1 task" if count == 1 else f"mean of {count} tasks"
    return [tasks, title, *_estimates(metric, [mean_over_tasks(groups, method) for method in matched.methods])]


def format_means(matched: Matched, metric: Metric) -> str:
    """Means over the tasks that all methods have, for each k and for all."""
    rows = [_mean_row(matched, metric, [size], str(size)) for size in matched.sizes]
    if len(matched.sizes) > 1:
        rows.append(_mean_row(matched, metric, matched.sizes, "all"))
    return table([metric.label, "k", *map(plain, matched.methods)], rows)


def describe_matching(matched: Matched) -> str:
    """How many cells are compared, and what is not in the means."""
    cells = f"{matched.counted} of {matched.counted + matched.left_out} cells (task, k, seed) are compared"
    if matched.left_out:
        cells += "; the others lack a method that was measured at their task and k"
    missing = len(matched.groups) - len(matched.complete(matched.sizes))
    if missing:
        cells += (
            f". {missing} of {len(matched.groups)} pairs of task and k lack a method: the mean over all leaves them "
            "out, and the mean at a k leaves out the tasks that lack a method which others have at that k"
        )
    return cells + "."


def format_differences(records: Sequence[Record], methods: Sequence[str], reference: str, metric: Metric) -> str:
    """Every method minus the reference, over the cells that both have; "" when there is no other method."""
    rows = []
    for method in methods:
        if method == reference:
            continue
        matched = match_cells(records, [reference, method], metric.value)
        groups = [group for group in matched.groups if len(group.values) == 2]
        cells = sum(map(_seed_count, groups))
        left_out = matched.counted + matched.left_out - cells
        compared = _compare(groups, reference, method, metric) if groups else [NOTHING] * 6
        rows.append([plain(method), *compared, str(cells), str(left_out)])
    unit = f", {metric.difference_unit}" if metric.difference_unit else ""
    header = [f"{metric.title}, minus {plain(reference)}", f"difference{unit}", "wins / ties / losses"]
    header += ["p over cells", "cells alike", "p over tasks", "tasks", "cells", "left out"]
    return table(header, rows) if rows else ""


def _compare(groups: Sequence[Group], reference: str, method: str, metric: Metric) -> list[str]:
    by_task: dict[str, list[dict[int, float]]] = {}
    for group in groups:
        first, second = group.values[reference], group.values[method]
        by_task.setdefault(group.task, []).append({seed: second[seed] - first[seed] for seed in first})
    means = [fmean(size.values()) for sizes in by_task.values() for size in sizes]
    over_cells = paired_test([value for sizes in by_task.values() for size in sizes for value in size.values()])
    over_tasks = paired_test([fmean(fmean(size.values()) for size in sizes) for sizes in by_task.values()])
    return [
        metric.write_difference(average(list(by_task.values()))),
        " / ".join(map(str, wins_ties_losses(means if metric.higher_is_better else [-value for value in means]))),
        f"{over_cells.p_value:.2g}",
        str(over_cells.ties),
        f"{over_tasks.p_value:.2g}",
        str(over_tasks.pairs),
    ]


def format_costs(records: Sequence[Record], methods: Sequence[str]) -> str:
    """Mean seconds of a cell at each k, and the largest memory."""
    matched = match_cells(records, methods, lambda record: record.seconds)
    rows = []
    for method in methods:
        own = [record for record in records if record.method == method and record.error is None]
        seconds = [mean_over_tasks(matched.complete([k]), method) for k in matched.sizes]
        devices = ", ".join(dict.fromkeys(record.device for record in own))
        memory = max(record.memory_mb for record in own)
        times = [NOTHING if one is None else f"{one.mean:.3g}" for one in seconds]
        rows.append([plain(method), plain(devices), f"{memory:.0f}", *times])
    return table(["method", "device", "largest memory, MB", *(f"s, k={k}" for k in matched.sizes)], rows, 2)


def format_failures(records: Sequence[Record]) -> str:
    """The cells that failed, those that failed alike in one line; "" when none did."""
    failed: dict[tuple[str, int, str, str], list[int]] = {}
    for record in records:
        if record.error is not None:
            failed.setdefault((record.task, record.k, record.method, record.error), []).append(record.seed)
    rows = [
        [plain(task), str(k), write_seeds(seeds), plain(method), code(error)]
        for (task, k, method, error), seeds in failed.items()
    ]
    return table(["task", "k", "seeds", "method", "error"], rows, numbers_from=5) if rows else ""


__all__ = [
    "choose_reference",
    "describe_matching",
    "format_costs",
    "format_differences",
    "format_failures",
    "format_means",
    "format_tasks",
    "list_methods",
]
