"""The tables of a report, as text cells that markdown and HTML show alike."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import (
    Comparison,
    Group,
    Matched,
    MetricFormat,
    match_runs,
    mean_over_tasks,
)
from transformers_tart.evaluation.report.contrasts import Contrast


NOTHING = "–"
MAX_MESSAGE = 200  # characters
MARKUP = re.compile(r"([\\|<*`\[\]])")


class Cell(NamedTuple):
    """A cell of a table, as plain text."""

    text: str
    is_best: bool = False  # of its row
    is_code: bool = False
    share: float | None = None  # between 0 and 1, for its shade

    def markdown(self) -> str:
        """Format the cell, escaped and on one line."""
        if self.is_code:
            return "`" + self.text.replace("|", "\\|").replace("`", "'") + "`"
        text = escape_markdown(self.text)
        return re.sub(r"^\S+", r"**\g<0>**", text) if self.is_best else text


@dataclass(frozen=True)
class Table:
    """A header and rows; the columns from `numbers_from` on hold numbers, aligned right."""

    header: list[str]
    rows: list[list[Cell]]
    numbers_from: int = 1

    @classmethod
    def of(cls, header: Sequence[str], rows: Sequence[Sequence[str | Cell]], numbers_from: int = 1) -> "Table":
        """Make a table of cells or their texts."""
        cells = [[Cell(each) if isinstance(each, str) else each for each in row] for row in rows]
        return cls(list(header), cells, numbers_from)

    def markdown(self) -> str:
        """Format the table."""
        words = min(self.numbers_from, len(self.header))
        rule = "|---" * words + "|--:" * (len(self.header) - words) + "|"
        rows = [list(map(escape_markdown, self.header)), *([cell.markdown() for cell in row] for row in self.rows)]
        first, *others = (f"| {' | '.join(row)} |" for row in rows)
        return "\n".join([first, rule, *others])


def escape_markdown(text: str) -> str:
    """Escape markdown, on one line."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def shorten(text: str, longest: int = MAX_MESSAGE) -> str:
    """Cut a text that is longer."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def code_cell(text: str) -> Cell:
    """Return a cell with the first line of a message as code."""
    line = (text.strip().splitlines() or [""])[0]
    return Cell(shorten(line), is_code=True) if line else Cell(NOTHING)


def format_seeds(seeds: Sequence[int]) -> str:
    """Format numbers, consecutive ones as a range."""
    ordered = enumerate(sorted(set(seeds)))
    runs = [[seed for _, seed in run] for _, run in groupby(ordered, lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _estimate_cells(metric: MetricFormat, groups: Sequence[Group], methods: Sequence[str]) -> list[Cell]:
    """Format the means of methods, and mark all that round to the best one."""
    estimates = [mean_over_tasks(groups, method) for method in methods]
    texts = [NOTHING if found is None else found.format(metric.factor, metric.digits) for found in estimates]
    means = {text: float(text.split(" ")[0]) for text in texts if text != NOTHING}
    if len(texts) - texts.count(NOTHING) < 2:
        return [Cell(text) for text in texts]
    best = (max if metric.higher_is_better else min)(means.values())
    return [Cell(text, is_best=means.get(text) == best) for text in texts]


def tabulate_facts(comparison: Comparison) -> Table:
    """List what was measured."""
    done = [record for record in comparison.records if record.error is None]
    tasks = {record.task: f"{record.task} ({record.num_classes} classes)" for record in done}
    queries = sorted({record.test_rows for record in done})
    facts = {
        "model": ", ".join(dict.fromkeys(record.model for record in done)),
        f"tasks ({len(tasks)})": ", ".join(tasks.values()),
        comparison.size: ", ".join(map(str, sorted({record.k for record in done}))),
        "seeds": format_seeds([record.seed for record in done]),
        "methods": ", ".join(comparison.methods),
        "queries per run": " to ".join(map(str, dict.fromkeys((queries[0], queries[-1])))),
        "runs": f"{len(done)} measured, {len(comparison.records) - len(done)} failed",
        "device": ", ".join(dict.fromkeys(record.device for record in done)),
    }
    return Table.of(["", "measured"], list(facts.items()), 2)


def tabulate_tasks(matched: Matched, metric: MetricFormat, size: str = "k") -> Table:
    """List the mean and the interval over the seeds, for each task and k, or other `size`."""
    rows: list[list[str | Cell]] = [
        [group.task, str(group.k), str(group.seeds), *_estimate_cells(metric, [group], matched.methods)]
        for group in matched.groups
    ]
    return Table.of([metric.label, size, "seeds", *matched.methods], rows)


def tabulate_means(matched: Matched, metric: MetricFormat, size: str = "k") -> Table:
    """List the means over the tasks that all methods have, for each k, or other `size`."""
    rows: list[list[str | Cell]] = []
    for k in matched.sizes:
        if groups := matched.complete(k):
            title = "1 task" if len(groups) == 1 else f"mean of {len(groups)} tasks"
            rows.append([title, str(k), *_estimate_cells(metric, groups, matched.methods)])
    return Table.of([metric.label, size, *matched.methods], rows)


def describe_matching(matched: Matched) -> str:
    """Describe how many support sets are compared, and what the means leave out."""
    text = f"{matched.counted} of {matched.counted + matched.left_out} support sets (task, k, seed) are compared"
    if matched.left_out:
        text += "; the others lack a method that was measured at their task and k"
    if missing := len(matched.groups) - sum(len(matched.complete(k)) for k in matched.sizes):
        text += (
            f". {missing} of {len(matched.groups)} pairs of task and k lack a method that others have at that k; the "
            "means leave them out"
        )
    return text + "."


def tabulate_differences(
    contrasts: Sequence[Contrast], reference: str, metric: MetricFormat, size: str = "k"
) -> Table:
    """List every method minus the reference at each k, over the support sets that both have."""
    rows = [
        [
            each.method,
            str(each.k),
            each.difference.format(metric.factor, metric.digits + 1, signed=True),
            " / ".join(map(str, each.wins)),
            f"{each.over_supports.p_value:.2g}",
            str(each.over_supports.ties),
            f"{each.over_tasks.p_value:.2g}",
            str(each.over_tasks.pairs),
            str(each.over_supports.pairs),
            str(each.left_out),
        ]
        for each in contrasts
    ]
    difference = ", ".join(filter(None, ("difference", metric.difference_unit)))
    header = [f"{metric.title}, minus {reference}", size, difference, "wins / ties / losses"]
    header += ["p over support sets", "equal", "p over tasks", "tasks", "support sets", "left out"]
    return Table.of(header, rows)


def tabulate_costs(records: Sequence[Record], methods: Sequence[str], size: str = "k") -> Table:
    """List the mean seconds of a run at each k, those of the CPUs where all records have them, and the memory."""
    spent = {"s": match_runs(records, methods, lambda record: record.seconds)}
    if all(record.cpu_seconds is not None for record in records):
        spent["CPU s"] = match_runs(records, methods, lambda record: record.cpu_seconds)
    rows = []
    for method in methods:
        own = [record for record in records if record.method == method and record.error is None]
        devices = ", ".join(dict.fromkeys(record.device for record in own))
        seconds = [mean_over_tasks(each.complete(k), method) for each in spent.values() for k in each.sizes]
        times = [NOTHING if found is None else f"{found.mean:.3g}" for found in seconds]
        rows.append([method, devices, f"{max(record.memory_mb for record in own):.0f}", *times])
    columns = [f"{unit}, {size}={k}" for unit, each in spent.items() for k in each.sizes]
    return Table.of(["method", "device", "largest memory, MB", *columns], rows, 2)


def tabulate_failures(records: Sequence[Record], size: str = "k") -> Table:
    """List the failed runs, those with the same error in one line."""
    failed = defaultdict(list)
    for record in records:
        if record.error is not None:
            failed[record.task, record.k, record.method, record.error].append(record.seed)
    rows: list[list[str | Cell]] = [
        [task, str(k), format_seeds(seeds), method, code_cell(error)]
        for (task, k, method, error), seeds in failed.items()
    ]
    return Table.of(["task", size, "seeds", "method", "error"], rows, numbers_from=5)
