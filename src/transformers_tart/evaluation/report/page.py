"""The page of a report, and its results as metadata of a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from transformers_tart.evaluation.report import tables
from transformers_tart.evaluation.report.comparison import Comparison, mean_over_tasks
from transformers_tart.evaluation.report.plots import write_plots
from transformers_tart.evaluation.report.tables import escape_markdown
from transformers_tart.files import write_whole


def render_template(path: Path, content: Mapping[str, Any]) -> str:
    """Fill a markdown template, whose filter `escape_markdown` escapes names."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["escape_markdown"] = escape_markdown
    return environment.from_string(path.read_text(encoding="utf-8")).render(content).rstrip() + "\n"


def _facts(comparison: Comparison) -> dict[str, str]:
    done = [record for record in comparison.records if record.error is None]
    tasks = {record.task: f"{escape_markdown(record.task)} ({record.num_classes} classes)" for record in done}
    queries = sorted({record.test_rows for record in done})
    return {
        "model": ", ".join(dict.fromkeys(escape_markdown(record.model) for record in done)),
        f"tasks ({len(tasks)})": ", ".join(tasks.values()),
        comparison.size: ", ".join(map(str, sorted({record.k for record in done}))),
        "seeds": tables.format_seeds([record.seed for record in done]),
        "methods": ", ".join(map(escape_markdown, comparison.methods)),
        "queries per run": " to ".join(map(str, dict.fromkeys((queries[0], queries[-1])))),
        "runs": f"{len(done)} measured, {len(comparison.records) - len(done)} failed",
        "device": ", ".join(dict.fromkeys(escape_markdown(record.device) for record in done)),
    }


def format_page(comparison: Comparison, plots: Mapping[Path, str] | None = None) -> str:
    """Format the page in markdown, with captioned plots from the folder `plots` beside it."""
    records, methods, reference = comparison.records, comparison.methods, comparison.reference
    size = comparison.size
    matched = {metric: comparison.match(metric) for metric in comparison.metrics}
    differences = [tables.format_differences(records, methods, reference, metric) for metric in matched]
    content = {
        "facts": _facts(comparison),
        "means": [
            (tables.format_means(runs, each, size), tables.describe_matching(runs)) for each, runs in matched.items()
        ],
        "plots": plots or {},
        "reference": reference,
        "differences": [table for table in differences if table],
        "costs": tables.format_costs(records, methods, size),
        "tasks": [tables.format_tasks(runs, metric, size) for metric, runs in matched.items()],
        "failures": tables.format_failures(records, size),
    }
    return render_template(Path(__file__).with_name("page_template.md"), content)


def list_results(comparison: Comparison, method: str) -> list[EvalResult]:
    """Return the means of a method for each task and k as metadata of a model card."""
    # k is part of the metric: results that share a data set become one entry of the index with a single dataset.args
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=group.task,
            dataset_name=group.task,
            dataset_split="test",
            metric_type=metric.name,
            metric_value=round(found.mean, 6),
            metric_name=f"{metric.title}, {comparison.size}={group.k}",
            metric_args={comparison.size: group.k, "method": method, "seeds": group.seeds},
        )
        for metric in comparison.metrics
        for group in comparison.match(metric).groups
        if (found := mean_over_tasks([group], method)) is not None
    ]


def format_model_index(comparison: Comparison) -> str:
    """Format the results of the reference as the `model-index` of a model card, in YAML."""
    results = list_results(comparison, comparison.reference)
    model = next(record.model for record in comparison.records if record.method == comparison.reference)
    return ModelCardData(model_name=model, eval_results=results).to_yaml() + "\n"


def write_report(folder: str | Path, comparison: Comparison, with_plots: bool = True) -> list[Path]:
    """Write `report.md`, `model_index.yaml` and the plots, each as PNG and SVG; return the paths without the SVGs.

    Raises:
        ImportError: When plots are requested and matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plots = write_plots(folder / "plots", comparison) if with_plots else {}
    page, model_index = folder / "report.md", folder / "model_index.yaml"
    write_whole(page, format_page(comparison, plots))
    write_whole(model_index, format_model_index(comparison))
    return [page, model_index, *plots]
