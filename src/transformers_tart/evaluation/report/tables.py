"""The tables of a report, in markdown."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from statistics import fmean

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import Group, Matched, MetricFormat, match_runs, mean_over_tasks
from transformers_tart.evaluation.report.statistics import average, paired_test, wins_ties_losses


NOTHING = "–"
MAX_MESSAGE = 200  # characters
MARKUP = re.compile(r"([\\|<*`\[\]])")


def escape_markdown(text: str) -> str:
    """Escape markdown, on one line."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def as_code(text: str) -> str:
    """Format the first line of a message as code for the cell of a table."""
    line = (text.strip().splitlines() or [""])[0]
    line = line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"
    return "`" + line.replace("|", "\\|").replace("`", "'") + "`" if line else NOTHING


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """Format a table; the columns from `numbers_from` on are aligned right."""
    rule = "|---" * min(numbers_from, len(header)) + "|--:" * max(0, len(header) - numbers_from) + "|"
    first, *others = (f"| {' | '.join(row)} |" for row in (header, *rows))
    return "\n".join([first, rule, *others])


def format_seeds(seeds: Sequence[int]) -> str:
    """Format numbers, consecutive ones as a range."""
    ordered = enumerate(sorted(set(seeds)))
    runs = [[seed for _, seed in run] for _, run in groupby(ordered, lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _format_row(metric: MetricFormat, groups: Sequence[Group], methods: Sequence[str]) -> list[str]:
    """Format the means of methods, with all that round to the best one in bold."""
    estimates = [mean_over_tasks(groups, method) for method in methods]
    texts = [NOTHING if found is None else found.format(metric.factor, metric.digits) for found in estimates]
    means = {text: float(text.split(" ")[0]) for text in texts if text != NOTHING}
    if len(texts) - texts.count(NOTHING) < 2:
        return texts
    best = (max if metric.higher_is_better else min)(means.values())
    return [re.sub(r"^\S+", r"**\g<0>**", text) if means.get(text) == best else text for text in texts]


def format_tasks(matched: Matched, metric: MetricFormat, size: str = "k") -> str:
    """Format the mean and the interval over the seeds, for each task and k, or other `size`."""
    rows = [
        [escape_markdown(group.task), str(group.k), str(group.seeds), *_format_row(metric, [group], matched.methods)]
        for group in matched.groups
    ]
    return table([metric.label, size, "seeds", *map(escape_markdown, matched.methods)], rows)


def format_means(matched: Matched, metric: MetricFormat, size: str = "k") -> str:
    """Format the means over the tasks that all methods have, for each k, or other `size`, and for all."""
    rows = []
    for sizes in [[k] for k in matched.sizes] + [matched.sizes] * (len(matched.sizes) > 1):
        groups = matched.complete(sizes)
        if not groups:
            continue
        count = len({group.task for group in groups})
        title = ["1 task" if count == 1 else f"mean of {count} tasks", "all" if len(sizes) > 1 else str(sizes[0])]
        rows.append(title + _format_row(metric, groups, matched.methods))
    return table([metric.label, size, *map(escape_markdown, matched.methods)], rows)


def describe_matching(matched: Matched) -> str:
    """Describe how many support sets are compared, and what the means leave out."""
    text = f"{matched.counted} of {matched.counted + matched.left_out} support sets (task, k, seed) are compared"
    if matched.left_out:
        text += "; the others lack a method that was measured at their task and k"
    if missing := len(matched.groups) - len(matched.complete(matched.sizes)):
        text += (
            f". {missing} of {len(matched.groups)} pairs of task and k lack a method: the mean over all k leaves them "
            "out, and the mean at one k leaves out the tasks that lack a method which others have at that k"
        )
    return text + "."


def format_differences(records: Sequence[Record], methods: Sequence[str], reference: str, metric: MetricFormat) -> str:
    """Format every method minus the reference, over the support sets that both have; "" without another method."""
    rows = []
    for method in methods:
        if method == reference:
            continue
        matched = match_runs(records, [reference, method], metric.value)
        groups = [group for group in matched.groups if len(group.values) == 2]
        count = sum(group.seeds for group in groups)
        compared = _compare(groups, reference, method, metric) if groups else [NOTHING] * 6
        rows.append([escape_markdown(method), *compared, str(count), str(matched.counted + matched.left_out - count)])
    unit = {"": "", "%": ", points"}.get(metric.unit, f", {metric.unit}")
    header = [f"{metric.title}, minus {escape_markdown(reference)}", f"difference{unit}", "wins / ties / losses"]
    header += ["p over support sets", "equal", "p over tasks", "tasks", "support sets", "left out"]
    return table(header, rows) if rows else ""


def _compare(groups: Sequence[Group], reference: str, method: str, metric: MetricFormat) -> list[str]:
    by_task = defaultdict(list)
    for group in groups:
        first, second = group.values[reference], group.values[method]
        by_task[group.task].append({seed: second[seed] - first[seed] for seed in first})
    tasks, sign = list(by_task.values()), 1 if metric.higher_is_better else -1
    means = [[fmean(size.values()) for size in sizes] for sizes in tasks]
    over_supports = paired_test([value for sizes in tasks for size in sizes for value in size.values()])
    over_tasks = paired_test([fmean(sizes) for sizes in means])
    return [
        average(tasks).format(metric.factor, metric.digits + 1, signed=True),
        " / ".join(map(str, wins_ties_losses([sign * mean for sizes in means for mean in sizes]))),
        f"{over_supports.p_value:.2g}",
        str(over_supports.ties),
        f"{over_tasks.p_value:.2g}",
        str(over_tasks.pairs),
    ]


def format_costs(records: Sequence[Record], methods: Sequence[str], size: str = "k") -> str:
    """Format the mean seconds of a run at each k, those of the CPUs where all records have them, and the memory."""
    spent = {"s": match_runs(records, methods, lambda record: record.seconds)}
    if all(record.cpu_seconds is not None for record in records):
        spent["CPU s"] = match_runs(records, methods, lambda record: record.cpu_seconds)
    rows = []
    for method in methods:
        own = [record for record in records if record.method == method and record.error is None]
        devices = ", ".join(dict.fromkeys(record.device for record in own))
        seconds = [mean_over_tasks(each.complete([k]), method) for each in spent.values() for k in each.sizes]
        times = [NOTHING if found is None else f"{found.mean:.3g}" for found in seconds]
        memory = max(record.memory_mb for record in own)
        rows.append([escape_markdown(method), escape_markdown(devices), f"{memory:.0f}", *times])
    columns = [f"{unit}, {size}={k}" for unit, each in spent.items() for k in each.sizes]
    return table(["method", "device", "largest memory, MB", *columns], rows, 2)


def format_failures(records: Sequence[Record], size: str = "k") -> str:
    """Format the failed runs, those with the same error in one line; "" when none failed."""
    failed = defaultdict(list)
    for record in records:
        if record.error is not None:
            failed[record.task, record.k, record.method, record.error].append(record.seed)
    rows = [
        [escape_markdown(task), str(k), format_seeds(seeds), escape_markdown(method), as_code(error)]
        for (task, k, method, error), seeds in failed.items()
    ]
    return table(["task", size, "seeds", "method", "error"], rows, numbers_from=5) if rows else ""
