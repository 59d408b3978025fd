"""The plots of a report, each as PNG and SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import drawing
from transformers_tart.evaluation.report.display import Metric
from transformers_tart.evaluation.report.drawing import Look
from transformers_tart.evaluation.report.matching import Group, Matched, match_cells, mean_over_tasks
from transformers_tart.evaluation.report.statistics import Estimate


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEP, SPREAD = 0.03, 0.4  # octaves between the error bars of two methods at a k, and between all
EXAMPLES = "k, labeled examples"

Curves = dict[str, list[tuple[float, Estimate]]]


@dataclass(frozen=True)
class Plot:
    """A plot that was written.

    Attributes:
        path: of the PNG; the SVG is beside it.
        caption: what it shows.
    """

    path: Path
    caption: str


def draw_tasks(matched: Matched, metric: Metric, looks: dict[str, Look]) -> "Figure":
    """A metric against k, a panel for each task."""
    groups_of: dict[str, list[Group]] = {}
    for group in matched.groups:
        groups_of.setdefault(group.task, []).append(group)
    figure, panels = drawing.make_panels(len(groups_of), 4, 2.6, 2.1, len(looks))
    for axes, (task, groups) in zip(panels, groups_of.items(), strict=True):
        curves: Curves = {
            method: [(group.k, found) for group in groups if (found := group.estimate(method)) is not None]
            for method in matched.methods
        }
        _draw_curves(axes, curves, metric, looks)
        drawing.set_size_axis(axes, [group.k for group in groups])
        axes.set_title(drawing.shorten(task, 34))
    drawing.label(figure, EXAMPLES, metric.label)
    drawing.add_legend(figure, looks)
    return figure


def _mean_at(matched: Matched, tasks: Sequence[str], k: int, method: str) -> Estimate | None:
    return mean_over_tasks([group for group in matched.groups if group.k == k and group.task in tasks], method)


def _title(tasks: Sequence[str]) -> str:
    return drawing.shorten(tasks[0], 50) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"


def draw_means(matched: Matched, metric: Metric, looks: dict[str, Look]) -> "Figure":
    """The mean of a metric over tasks against k, a panel for the tasks of the same sizes."""
    panels_of = matched.panels()
    figure, panels = drawing.make_panels(len(panels_of), 2, 5.0, 3.5, len(looks))
    for axes, (tasks, sizes) in zip(panels, panels_of, strict=True):
        curves: Curves = {
            method: [(k, found) for k in sizes if (found := _mean_at(matched, tasks, k, method)) is not None]
            for method in matched.methods
        }
        _draw_curves(axes, curves, metric, looks)
        drawing.set_size_axis(axes, sizes)
        axes.set_title(_title(tasks))
    drawing.label(figure, EXAMPLES, metric.label)
    drawing.add_legend(figure, looks)
    return figure


def _draw_curves(axes: "Axes", curves: Curves, metric: Metric, looks: dict[str, Look]) -> None:
    step = min(STEP, SPREAD / len(curves))
    for i, (method, points) in enumerate(curves.items()):
        aside = 2 ** (step * (i - (len(curves) - 1) / 2))  # bars at the same place would hide each other
        x = [k * aside for k, _ in points]
        y = [metric.factor * found.mean for _, found in points]
        half = [metric.factor * (found.half_width or 0.0) for _, found in points]
        axes.plot(x, y, **looks[method].line)
        axes.errorbar(x, y, half, fmt="none", ecolor=looks[method].color, elinewidth=0.8, alpha=0.6, zorder=2)


def draw_costs(matched: Matched, seconds: Matched, metric: Metric, looks: dict[str, Look]) -> "Figure":
    """The mean of a metric against the mean seconds of a cell, a point for each k and a panel as in the means."""
    panels_of = matched.panels()
    figure, panels = drawing.make_panels(len(panels_of), 2, 5.0, 3.5, len(looks))
    for axes, (tasks, sizes) in zip(panels, panels_of, strict=True):
        for method, look in looks.items():
            found = [(_mean_at(seconds, tasks, k, method), _mean_at(matched, tasks, k, method)) for k in sizes]
            points = [(time.mean, metric.factor * value.mean) for time, value in found if time and value]
            if points:
                axes.plot(*zip(*points, strict=True), **{**look.line, "linewidth": 0.8, "alpha": 0.8})
        drawing.set_seconds_axis(axes)
        axes.set_title(f"{_title(tasks)}, k = {', '.join(map(str, sizes))}")
    drawing.label(figure, "seconds for a cell", metric.label)
    drawing.add_legend(figure, looks)
    return figure


def pool_calibration(records: Sequence[Record], matched: Matched) -> dict[str, list[list[float]]]:
    """The sums of the calibration bins of each method over the compared cells; without methods that have none."""
    compared = {
        (group.task, group.k, seed, method)
        for group in matched.groups
        for method, values in group.values.items()
        for seed in values
    }
    pooled: dict[str, list[list[float]]] = {}
    for record in records:
        if record.key in compared and record.calibration:
            bins = record.calibration
            sums = pooled.setdefault(record.method, [[0.0, 0.0, 0.0] for _ in bins])
            for i, row in enumerate(bins):
                place = i if len(bins) == len(sums) else _bin_of(row, len(sums))  # version 0.1 had 10 bins
                sums[place] = [a + b for a, b in zip(sums[place], row, strict=True)]
    return {method: pooled[method] for method in matched.methods if method in pooled}


def _bin_of(row: Sequence[float], bins: int) -> int:
    """Return the bin, of a number of them, that holds the mean confidence of a row of other bins."""
    count, confidence, _ = row
    return max(0, math.ceil(bins * confidence / count - 1e-9) - 1) if count else 0


def draw_calibration(pooled: dict[str, list[list[float]]], looks: dict[str, Look]) -> "Figure":
    """Accuracy against confidence, with the share of the predictions in each bin; a panel for each method."""
    figure, panels = drawing.make_panels(len(pooled), 4, 2.1, 2.2, legend_rows=3)
    for axes, (method, bins) in zip(panels, pooled.items(), strict=True):
        total = sum(count for count, _, _ in bins)
        width = 100 / len(bins)
        middles = [width * (i + 0.5) for i in range(len(bins))]
        shares = [100 * count / total for count, _, _ in bins]
        axes.bar(middles, shares, 0.9 * width, **drawing.BARS, zorder=1)
        axes.plot([0, 100], [0, 100], **drawing.DIAGONAL, zorder=2)
        filled = [(100 * sure / count, 100 * right / count) for count, sure, right in bins if count]
        axes.plot(*zip(*filled, strict=True), **{**looks[method].line, "linestyle": "-"})
        axes.set(xlim=(0, 100), ylim=(0, 102), xticks=[0, 50, 100], yticks=[0, 50, 100])
        axes.set_title(f"{drawing.shorten(method, 28)}\n{total:,.0f} predictions")
    drawing.label(figure, "confidence, %", "accuracy, %")
    drawing.add_calibration_legend(figure)
    return figure


def write_plots(
    folder: Path, records: Sequence[Record], matched: Matched, metric: Metric, reference: str
) -> list[Plot]:
    r"""
    Write all plots.

    Args:
        folder (`Path`):
            Where to; it is made when there is none.
        records (`list[Record]`):
            What was measured.
        matched ([`Matched`]):
            What of it is compared.
        metric ([`Metric`]):
            The main metric, that of the curves.
        reference (`str`):
            The method that is drawn in front.

    Raises:
        ImportError: Without matplotlib.
    """
    looks = drawing.choose_looks(matched.methods, reference)
    seconds = match_cells(records, matched.methods, lambda record: record.seconds)
    pooled = pool_calibration(records, matched)
    with drawing.plotting():
        figures = [("tasks", f"{metric.title} against k for every task.", draw_tasks(matched, metric, looks))]
        if matched.panels():
            means = f"{metric.title} against k, mean over tasks."
            figures.insert(0, ("means", means, draw_means(matched, metric, looks)))
            costs = f"{metric.title} against the seconds of a cell; a point for each k, joined from small to large."
            figures.append(("seconds", costs, draw_costs(matched, seconds, metric, looks)))
        if pooled:
            calibration = "Accuracy against confidence, over all compared cells; the bars are shares of predictions."
            figures.append(("calibration", calibration, draw_calibration(pooled, looks)))
        return [Plot(drawing.save(figure, folder, name), caption) for name, caption, figure in figures]


__all__ = ["Plot", "draw_calibration", "draw_costs", "draw_means", "draw_tasks", "pool_calibration", "write_plots"]
