"""The page of a report, its plots, and its results as metadata of a model card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import tables
from transformers_tart.evaluation.report.display import METRICS, Metric, measured_metrics, plain, table, write_seeds
from transformers_tart.evaluation.report.matching import Matched, match_cells
from transformers_tart.evaluation.report.plots import Plot, write_plots
from transformers_tart.files import write_whole


PAGE, MODEL_INDEX, PLOTS = "report.md", "model_index.yaml", "plots"
VALUE_DIGITS = 6

INTERVALS = """\
± is half the width of the 95% interval by Student's t over the draws of support sets, the tasks taken as they are;
without it there was a single draw. The best of a row is in bold."""
DIFFERENCES = """\
A positive difference is a larger value. Wins, ties and losses are counted over the means of a task and k. p is that
of Wilcoxon's signed-rank test, two-sided, pairs without a difference ranked by Pratt: over cells, which are alike
within a task, it is about other support sets for these tasks; over the means of tasks, it is about other tasks.
Neither is corrected for the number of methods."""


@dataclass(frozen=True)
class Comparison:
    """What a report is about.

    Attributes:
        records: all that was read.
        methods: those that succeeded at least once.
        reference: the method that the others are compared with.
        metrics: what is shown; the first is plotted.
    """

    records: Sequence[Record]
    methods: list[str]
    reference: str
    metrics: list[Metric]

    @classmethod
    def of(
        cls, records: Sequence[Record], reference: str | None = None, metrics: Sequence[str] | None = None
    ) -> "Comparison":
        r"""
        Choose what is compared.

        Args:
            records (`list[Record]`):
                What was measured.
            reference (`str`, *optional*):
                The first method that begins with "tart" when not given.
            metrics (`list[str]`, *optional*):
                All known ones that were measured when not given.

        Raises:
            ValueError: When no cell succeeded, and when the reference or a metric was not measured.
        """
        methods = tables.list_methods(records)
        if not methods:
            errors = [record.error for record in records]
            raise ValueError(f"All {len(errors)} cells failed, the first with: {errors[0]}" if errors else "No cells.")
        measured = measured_metrics(records)
        chosen = measured if metrics is None else metrics
        if missing := [name for name in chosen if name not in measured]:
            raise ValueError(f"Not measured: {', '.join(missing)}; the results have {', '.join(measured)}.")
        if not chosen:
            raise ValueError(f"The results have none of the metrics {', '.join(METRICS)}.")
        return cls(records, methods, tables.choose_reference(methods, reference), [METRICS[name] for name in chosen])

    def match(self, metric: Metric) -> Matched:
        """The cells that are compared in a metric."""
        return match_cells(self.records, self.methods, metric.value)


def _facts(comparison: Comparison, versions: Mapping[str, str]) -> str:
    """What was measured, as a table."""
    done = [record for record in comparison.records if record.error is None]
    tasks = {record.task: f"{plain(record.task)} ({record.num_classes} classes)" for record in done}
    rows = {
        "model": ", ".join(dict.fromkeys(plain(record.model) for record in done)),
        f"tasks ({len(tasks)})": ", ".join(tasks.values()),
        "k": ", ".join(map(str, sorted({record.k for record in done}))),
        "seeds": write_seeds([record.seed for record in done]),
        "methods": ", ".join(map(plain, comparison.methods)),
        "queries of a cell": _range([record.test_rows for record in done]),
        "cells": f"{len(done)} measured, {len(comparison.records) - len(done)} failed",
        "device": ", ".join(dict.fromkeys(plain(record.device) for record in done)),
        **{plain(name): plain(version) for name, version in versions.items()},
    }
    return table(["", "measured"], list(rows.items()), numbers_from=2)


def _range(numbers: Sequence[int]) -> str:
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def format_page(comparison: Comparison, plots: Sequence[Plot] = (), versions: Mapping[str, str] | None = None) -> str:
    r"""
    The page in markdown.

    Args:
        comparison ([`Comparison`]):
            What it is about.
        plots (`list[Plot]`, *optional*):
            What is embedded, in the folder `plots` beside the page.
        versions (`Mapping[str, str]`, *optional*):
            Of the libraries that measured.
    """
    parts = ["# Results", _facts(comparison, versions or {}), "## Means over tasks", INTERVALS]
    for i, metric in enumerate(comparison.metrics):
        matched = comparison.match(metric)
        note = tables.describe_matching(matched)
        parts += [tables.format_means(matched, metric), *([] if note in parts else [note])]
        if i == 0:
            parts += [f"![{plot.caption}]({PLOTS}/{plot.path.name})\n\n{plot.caption}" for plot in plots]
    differences = [
        tables.format_differences(comparison.records, comparison.methods, comparison.reference, metric)
        for metric in comparison.metrics
    ]
    if any(differences):
        parts += [f"## Differences from {plain(comparison.reference)}", DIFFERENCES, *differences]
    parts += ["## Seconds and memory", tables.format_costs(comparison.records, comparison.methods), "## Every task"]
    parts += [tables.format_tasks(comparison.match(metric), metric) for metric in comparison.metrics]
    if failures := tables.format_failures(comparison.records):
        parts += ["## Failed cells", failures]
    return "\n\n".join(parts) + "\n"


def list_results(comparison: Comparison, method: str) -> list[EvalResult]:
    r"""
    The results of a method as the metadata of a model card: for each task and k, the means that the tables show.

    Args:
        comparison ([`Comparison`]):
            What was measured.
        method (`str`):
            The method.
    """
    # k is told by the metric: results that share a data set are one entry of the index, with a single dataset.args
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=group.task,
            dataset_name=group.task,
            dataset_split="test",
            metric_type=metric.name,
            metric_value=round(found.mean, VALUE_DIGITS),
            metric_name=f"{metric.title}, k={group.k}",
            metric_args={"k": group.k, "method": method, "seeds": len(group.values[method])},
        )
        for metric in comparison.metrics
        for group in comparison.match(metric).groups
        if (found := group.estimate(method)) is not None
    ]


def format_model_index(comparison: Comparison) -> str:
    """The results of the reference as the `model-index` of a model card, in YAML."""
    results = list_results(comparison, comparison.reference)
    model = next(record.model for record in comparison.records if record.key[3] == comparison.reference)
    return ModelCardData(model_name=model, eval_results=results).to_yaml() + "\n"


def write_report(
    folder: str | Path, comparison: Comparison, with_plots: bool = True, versions: Mapping[str, str] | None = None
) -> list[Path]:
    r"""
    Write `report.md`, `model_index.yaml` and the plots, each as PNG and SVG.

    Args:
        folder (`str` or `Path`):
            Where to; it is made when there is none.
        comparison ([`Comparison`]):
            What was measured.
        with_plots (`bool`, *optional*, defaults to `True`):
            Whether plots are drawn, which needs matplotlib.
        versions (`Mapping[str, str]`, *optional*):
            Of the libraries that measured, for the page.

    Returns:
        `list[Path]`: the files, of a plot the PNG.

    Raises:
        ImportError: Without matplotlib, when there are to be plots.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    main = comparison.metrics[0]
    plots = []
    if with_plots:
        matched = comparison.match(main)
        plots = write_plots(folder / PLOTS, comparison.records, matched, main, comparison.reference)
    write_whole(folder / PAGE, format_page(comparison, plots, versions))
    write_whole(folder / MODEL_INDEX, format_model_index(comparison))
    return [folder / PAGE, folder / MODEL_INDEX, *(plot.path for plot in plots)]


__all__ = ["Comparison", "format_model_index", "format_page", "list_results", "write_report"]
