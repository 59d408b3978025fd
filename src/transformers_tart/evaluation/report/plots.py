"""The plots of a report, each as PNG and SVG; matplotlib is imported where it is used."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.checks.packages import import_package
from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import Comparison, Matched, MetricFormat, match_runs
from transformers_tart.files import explain_full_disk


if TYPE_CHECKING:
    import numpy as np
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme and black: ten colors that color-blind readers can tell apart
COLORS = ["#000000", "#CC6677", "#332288", "#117733", "#DDAA33", "#88CCEE", "#AA4499", "#44AA99", "#999933", "#882255"]
MARKERS = "os^DvPX<>ph*"
LINES = ("-", "--", ":")
LEGEND_WIDTH, LEGEND_ROW = 2.7, 0.2  # inches
DIAGONAL: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (4, 3))}
BARS: dict[str, Any] = {"color": "#cccccc"}
MARGIN = 1.35  # factor beyond the smallest and the largest k
MAX_UPRIGHT = 5  # the labels of more sizes are rotated
LINEAR_RATIO = 3  # largest to smallest seconds up to which a linear axis has more ticks
SECONDS_TICKS = ((20, (1, 1.5, 2, 3, 5, 7)), (5000, (1, 2, 5)), (math.inf, (1,)))  # per power of ten, up to a ratio
STEP, SPREAD = 0.03, 0.4  # octaves between the error bars of two methods at a k, and between the outermost
SMALL, LARGE = (4, 2.6, 2.1), (2, 5.0, 3.5)  # panels in a row, and inches of each
NARROW = 3.2  # inches of a figure for a telephone
SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 130,
    "text.parse_math": False,  # names may contain dollar signs
    "svg.hashsalt": "transformers-tart",  # same numbers, same bytes
}

EXAMPLES = "k, labeled examples"  # label of an axis

Style = dict[str, Any]  # options of matplotlib's `Line2D`
Panel = tuple[list[str], list[int]]  # tasks and sizes


def require_matplotlib() -> Any:
    """Import matplotlib, or raise an ImportError that names the extra to install."""
    return import_package("matplotlib", "plots", "A report with plots")


def plotting() -> AbstractContextManager[None]:
    """Apply the settings of all plots."""
    return require_matplotlib().rc_context(SETTINGS)


def choose_styles(methods: Sequence[str], reference: str) -> dict[str, Style]:
    """Return a line style for each method; the reference is black, thicker and in front."""
    ordered = [reference, *(method for method in methods if method != reference)]
    return {
        method: {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i // len(COLORS) % len(LINES)],
            "linewidth": 2.0 if method == reference else 1.0,
            "markersize": 4.5 if method == reference else 3.6,
            "zorder": 4 if method == reference else 3,
        }
        for i, method in enumerate(ordered)
    }


def _shorten(name: str, longest: int) -> str:
    name, kept = " ".join(name.split()), longest - 1
    return name if len(name) <= longest else name[: kept - kept // 2] + "…" + name[-(kept // 2) :]


def _make_panels(
    titles: Sequence[str],
    layout: tuple[int, float, float],
    x: str,
    y: str,
    legend: Sequence["Artist"],
    is_narrow: bool = False,
) -> tuple["Figure", list["Axes"]]:
    """Make a figure of equal panels, row by row, with the labels of its axes and a legend at the right, or above."""
    from matplotlib.figure import Figure

    count, (columns, width, height) = len(titles), layout
    columns = min(round(NARROW / width) or 1 if is_narrow else columns, count)
    rows = -(-count // columns)
    of_legend = (len(legend) + 1) * LEGEND_ROW
    size = (columns * width + LEGEND_WIDTH, max(rows * height + 0.3, of_legend))
    if is_narrow:
        size = (NARROW, rows * min(height, NARROW) + 0.3 + of_legend)
    figure = Figure(figsize=size, layout="constrained")
    panels = [figure.add_subplot(rows, columns, i + 1, title=title) for i, title in enumerate(titles)]
    figure.supxlabel(x, fontsize="medium")
    figure.supylabel(y, fontsize="medium")
    figure.legend(handles=legend, loc="outside upper left" if is_narrow else "outside right upper", handlelength=2.6)
    return figure, panels


def _method_legend(styles: dict[str, Style]) -> list["Artist"]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=_shorten(method, 34), **style) for method, style in styles.items()]


def _title(tasks: Sequence[str]) -> str:
    return _shorten(tasks[0], 30) if len(tasks) == 1 else f"mean of {len(tasks)} tasks"


def draw_against_size(
    matched: Matched,
    metric: MetricFormat,
    styles: dict[str, Style],
    panels: Sequence[Panel],
    layout: tuple[int, float, float],
    x_label: str = EXAMPLES,
    is_narrow: bool = False,
) -> "Figure":
    """Draw the mean of a metric over the tasks of each panel against k."""
    titles = [_title(tasks) for tasks, _ in panels]
    figure, drawn = _make_panels(titles, layout, x_label, metric.label, _method_legend(styles), is_narrow)
    step = min(STEP, SPREAD / len(matched.methods))
    for axes, (tasks, sizes) in zip(drawn, panels, strict=True):
        for i, method in enumerate(matched.methods):
            aside = 2 ** (step * (i - (len(matched.methods) - 1) / 2))  # keeps error bars from hiding each other
            found = {k: mean for k in sizes if (mean := matched.mean(method, tasks, k)) is not None}
            x = [k * aside for k in found]
            y = [metric.factor * mean.mean for mean in found.values()]
            half = [metric.factor * (mean.half_width or 0.0) for mean in found.values()]
            axes.plot(x, y, **styles[method])
            axes.errorbar(x, y, half, fmt="none", ecolor=styles[method]["color"], elinewidth=0.8, alpha=0.6, zorder=2)
        if sizes[0]:
            axes.set_xscale("log", base=2)
        else:  # 0 lies as far from 1 as 1 from 2
            axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.5)
        axes.set_xlim(sizes[0] / MARGIN if sizes[0] else 1 - MARGIN, max(sizes[-1], 1) * MARGIN)
        axes.set_xticks(sizes, list(map(str, sizes)), rotation=0 if len(sizes) <= MAX_UPRIGHT else 60)
        axes.set_xticks([], minor=True)
    return figure


def draw_costs(
    matched: Matched,
    seconds: Matched,
    metric: MetricFormat,
    styles: dict[str, Style],
    size: str = "k",
    is_narrow: bool = False,
) -> "Figure":
    """Draw the mean of a metric against the mean seconds of a run: a point for each k, panels as for the means."""
    panels = matched.panels()
    between = ",\n" if is_narrow else ", "
    titles = [f"{_title(tasks)}{between}{size} = {', '.join(map(str, sizes))}" for tasks, sizes in panels]
    figure, drawn = _make_panels(titles, LARGE, "seconds per run", metric.label, _method_legend(styles), is_narrow)
    for axes, (tasks, sizes) in zip(drawn, panels, strict=True):
        for method, style in styles.items():
            found = [(seconds.mean(method, tasks, k), matched.mean(method, tasks, k)) for k in sizes]
            points = [(time.mean, metric.factor * value.mean) for time, value in found if time and value]
            if points:
                axes.plot(*zip(*points, strict=True), **{**style, "linewidth": 0.8, "alpha": 0.8})
        _set_seconds_axis(axes)
    return figure


def _set_seconds_axis(axes: "Axes") -> None:
    """Make the x axis logarithmic, with plain numbers."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter

    axes.set_xscale("log")
    smallest, largest = axes.get_xlim()
    ticks = next(subs for ratio, subs in SECONDS_TICKS if largest <= ratio * smallest)
    is_short = largest <= LINEAR_RATIO * smallest
    axes.xaxis.set_major_locator(AutoLocator() if is_short else LogLocator(base=10, subs=ticks))
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def pool_calibration(records: Sequence[Record], matched: Matched) -> dict[str, "np.ndarray"]:
    """Sum the calibration bins (bins, 3) of each method over the compared runs; methods without bins are left out."""
    import numpy as np

    compared = {(g.task, g.k, seed, name) for g in matched.groups for name in g.values for seed in g.values[name]}
    pooled: dict[str, np.ndarray] = {}
    for record in records:
        if record.key in compared and record.calibration:
            bins = np.array(record.calibration)
            sums = pooled.setdefault(record.method, np.zeros_like(bins, dtype=float))
            places = np.arange(len(bins))
            if len(bins) != len(sums):  # the records of another version: by mean confidence
                confidence = bins[:, 1] / np.maximum(bins[:, 0], 1)
                places = np.ceil(len(sums) * confidence - 1e-9).astype(int).clip(1) - 1
            np.add.at(sums, places, bins)
    return {method: pooled[method] for method in matched.methods if method in pooled}


def draw_calibration(pooled: dict[str, "np.ndarray"], styles: dict[str, Style], is_narrow: bool = False) -> "Figure":
    """Draw accuracy against confidence with the share of predictions in each bin, a panel for each method."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend = [
        Line2D([], [], color="#000000", marker="o", markersize=4, label="accuracy"),
        Line2D([], [], **DIAGONAL, label="accuracy = confidence"),
        Patch(**BARS, label="share of predictions, %"),
    ]
    titles = [
        f"{_shorten(method, 16 if is_narrow else 28)}\n{bins[:, 0].sum():,.0f} predictions"
        for method, bins in pooled.items()
    ]
    figure, panels = _make_panels(titles, (4, 2.1, 2.2), "confidence, %", "accuracy, %", legend, is_narrow)
    for axes, (method, bins) in zip(panels, pooled.items(), strict=True):
        counts, width = bins[:, 0], 100 / len(bins)
        middles = [width * (i + 0.5) for i in range(len(bins))]
        axes.bar(middles, 100 * counts / counts.sum(), 0.9 * width, **BARS, zorder=1)
        axes.plot([0, 100], [0, 100], **DIAGONAL, zorder=2)
        confidence, accuracy = (100 * bins[counts > 0, column] / counts[counts > 0] for column in (1, 2))
        axes.plot(confidence, accuracy, **{**styles[method], "linestyle": "-"})
        axes.set(xlim=(0, 100), ylim=(0, 102), xticks=[0, 50, 100], yticks=[0, 50, 100])
    return figure


def save(figure: "Figure", folder: Path, name: str) -> Path:
    """Write a figure as SVG and as PNG, and return the path of the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    with explain_full_disk(folder):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path)
    return path


def write_plots(folder: Path, comparison: Comparison) -> dict[Path, str]:
    """Write the plots of the first metric, and return the caption of each PNG.

    Each plot is a PNG, an SVG, and a narrow SVG, whose name is that of [`narrow_path`].
    """
    with plotting(), explain_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        wide = draw_all(comparison)
        for name, _, figure in draw_all(comparison, is_narrow=True):
            figure.savefig(narrow_path(folder / name), metadata={"Date": None})
        return {save(figure, folder, name): caption for name, caption, figure in wide}


def narrow_path(path: Path) -> Path:
    """Return the path of the narrow form of a plot."""
    return path.with_suffix(".narrow.svg")


def draw_all(comparison: Comparison, is_narrow: bool = False) -> list[tuple[str, str, "Figure"]]:
    """Draw the plots of the first metric, each with its name and caption."""
    metric = comparison.metrics[0]
    matched = comparison.match(metric)
    seconds = match_runs(comparison.records, comparison.methods, lambda record: record.seconds)
    styles, size = choose_styles(matched.methods, comparison.reference), comparison.size
    x = EXAMPLES if size == "k" else f"labeled examples {size}"
    against = "k" if size == "k" else x
    pooled = pool_calibration(comparison.records, matched)
    tasks = f"{metric.title} against {against} for every task."
    single: list[Panel] = [([task], sizes) for task, sizes in matched.sizes_of.items()]
    figures = [("tasks", tasks, draw_against_size(matched, metric, styles, single, SMALL, x, is_narrow))]
    if panels := matched.panels():
        means = f"{metric.title} against {against}, mean over tasks."
        figures.insert(0, ("means", means, draw_against_size(matched, metric, styles, panels, LARGE, x, is_narrow)))
        costs = f"{metric.title} against the seconds of a run; a point for each size, joined from small to large."
        figures.append(("seconds", costs, draw_costs(matched, seconds, metric, styles, size, is_narrow)))
    if pooled:
        calibration = "Accuracy against confidence, over all compared runs; the bars are shares of predictions."
        figures.append(("calibration", calibration, draw_calibration(pooled, styles, is_narrow)))
    return figures
