"""The pages of a report, in markdown and HTML, its tables of classes, and its results as metadata of a model card."""

import base64
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report import tables
from transformers_tart.evaluation.report.comparison import Comparison, mean_over_tasks
from transformers_tart.evaluation.report.contrasts import contrast, describe_results
from transformers_tart.evaluation.report.plots import narrow_path, write_plots
from transformers_tart.evaluation.report.tables import NOTHING, Cell, Table, escape_markdown, format_seeds, shorten
from transformers_tart.files import write_whole


if TYPE_CHECKING:
    import numpy as np

    from transformers_tart.evaluation.tasks.task import Item, Task


MAX_MATRIX = 20  # classes; of more, only the pairs that are confused most are listed
MAX_PAIRS = 15
MAX_WRONG = 10
MAX_TEXT = 400  # characters
POINT = 4 / 3 * 1.2  # pixels of a point of a plot, whose text then is as large as that of the tables


@dataclass(frozen=True)
class Runs:
    """The runs of a method at one task and k."""

    task: str
    k: int
    method: str
    label_names: list[str]
    records: list[Record]

    @property
    def seeds(self) -> str:
        """Seeds of the runs."""
        return format_seeds([record.seed for record in self.records])

    def confusion(self) -> "np.ndarray":
        """Sum the number of rows (labels, predictions) over the runs."""
        import numpy as np

        counts = np.zeros((len(self.label_names), len(self.label_names)), dtype=int)
        for record in self.records:
            for label, prediction, count in record.confusion or ():
                if not (0 <= label < len(counts) and 0 <= prediction < len(counts)):
                    raise ValueError(
                        f"A record of {self.task} confuses class {label} with class {prediction} of {len(counts)}; "
                        "measure it again."
                    )
                counts[label, prediction] += count
        return counts


def group_runs(comparison: Comparison) -> Iterator[Runs]:
    """Yield the compared runs that have a confusion, by task, k and method, the reference first."""
    matched = comparison.match(comparison.metrics[0])
    done = {record.key: record for record in comparison.records if record.confusion and record.label_names}
    ordered = sorted(matched.methods, key=lambda method: method != comparison.reference)
    for group in matched.groups:  # those of a task follow each other
        for method in ordered:
            keys = [(group.task, group.k, seed, method) for seed in group.values.get(method, ())]
            records = [done[key] for key in keys if key in done]
            if records:
                yield Runs(group.task, group.k, method, records[0].label_names or [], records)


def tabulate_wrong(runs: Runs, task: "Task") -> Table:
    """List the texts that were most confidently wrong, each once, with the seeds at which the runs list it."""
    found = defaultdict(list)
    for record in runs.records:
        for row, prediction, probability in record.wrong or ():
            found[int(row), int(prediction)].append((probability, record.seed))
    surest = sorted(found.items(), key=lambda item: -max(item[1])[0])[:MAX_WRONG]
    rows = [
        [
            shorten(_format_item(task.test_texts[row], row), MAX_TEXT),
            runs.label_names[task.test_labels[row]],
            runs.label_names[prediction],
            f"{100 * max(listed)[0]:.1f}",
            format_seeds([seed for _, seed in listed]),
        ]
        for (row, prediction), listed in surest
    ]
    return Table.of([task.modality.name, "class", "predicted", "probability, %", "seeds"], rows, 3)


def _format_item(item: "Item", row: int) -> str:
    """Return a text or pair; of images and recordings, the row."""
    if isinstance(item, bytes):
        return f"test row {row}"
    return item if isinstance(item, str) else " | ".join(item)


def tabulate_classes(runs: Runs) -> Table:
    """List precision, recall and F1 of each class, and its rows, summed over the seeds."""
    counts = runs.confusion()
    right, rows, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}" if whole else NOTHING

    body = [
        [
            name,
            share(right[i], predicted[i]),
            share(right[i], rows[i]),
            share(2 * right[i], rows[i] + predicted[i]),
            str(rows[i]),
            str(predicted[i]),
        ]
        for i, name in enumerate(runs.label_names)
    ]
    return Table.of(["class", "precision, %", "recall, %", "F1, %", "rows", "predicted"], body)


def tabulate_confusion(runs: Runs) -> Table:
    """Return the matrix of labels and predictions, of many classes the pairs that are confused most."""
    counts, names = runs.confusion(), runs.label_names
    rows = counts.sum(1)
    if len(names) <= MAX_MATRIX:
        body = [
            [Cell(name), *(Cell(str(count), share=round(count / max(1, rows[i]), 3)) for count in counts[i])]
            for i, name in enumerate(names)
        ]
        return Table.of(["class / predicted", *names], body)
    pairs = sorted(
        ((counts[i, j], i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i, j]),
        key=lambda pair: -pair[0],
    )
    listed = [[names[i], names[j], str(count), f"{100 * count / rows[i]:.1f}"] for count, i, j in pairs[:MAX_PAIRS]]
    return Table.of(["class", "predicted", "rows", "of the class, %"], listed, 2)


def render_template(path: Path, content: Mapping[str, Any]) -> str:
    """Fill a template: one of HTML escapes all names, one of markdown those with the filter `escape_markdown`."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=path.suffix == ".html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["escape_markdown"] = escape_markdown
    return environment.get_template(path.name).render(content).rstrip() + "\n"


def _collect(comparison: Comparison, plots: Mapping[Path, str]) -> dict[str, Any]:
    """Return the contents that both pages show."""
    records, methods, size = comparison.records, comparison.methods, comparison.size
    matched = {metric: comparison.match(metric) for metric in comparison.metrics}
    differences = {metric.title: contrast(comparison, metric) for metric in matched}
    return {
        "verdict": describe_results(comparison),
        "facts": tables.tabulate_facts(comparison),
        "means": [
            (metric.title, tables.tabulate_means(runs, metric, size), tables.describe_matching(runs))
            for metric, runs in matched.items()
        ],
        "plots": plots,
        "reference": comparison.reference,
        "differences": [
            (metric.title, tables.tabulate_differences(differences[metric.title], comparison.reference, metric, size))
            for metric in matched
            if differences[metric.title]
        ],
        "costs": tables.tabulate_costs(records, methods, size),
        "tasks": [(metric.title, tables.tabulate_tasks(runs, metric, size)) for metric, runs in matched.items()],
        "failures": tables.tabulate_failures(records, size),
    }


def format_markdown(comparison: Comparison, plots: Mapping[Path, str] | None = None) -> str:
    """Format the page in markdown, with captioned plots from the folder `plots` beside it."""
    return render_template(Path(__file__).with_name("page_template.md"), _collect(comparison, plots or {}))


def format_html(
    comparison: Comparison, plots: Mapping[Path, str] | None = None, shown: "Mapping[str, Task] | None" = None
) -> str:
    """Format the page in HTML, which holds its plots, with the texts of the tasks `shown` that were surely wrong."""
    content = _collect(comparison, plots or {})
    content["plots"] = [
        (_embed(path.with_suffix(".svg")), _embed(narrow_path(path)), caption)
        for path, caption in content["plots"].items()
    ]
    content["classes"] = _collect_classes(comparison, shown or {})
    content["size"] = comparison.size
    return render_template(Path(__file__).with_name("page_template.html"), content)


def _embed(path: Path) -> tuple[str, int]:
    """Return an SVG as the address of an image, and its width in pixels."""
    svg = path.read_bytes()
    width = re.search(rb'width="([\d.]+)pt"', svg)
    assert width is not None  # as matplotlib writes it
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", round(POINT * float(width[1]))


def _collect_classes(comparison: Comparison, shown: "Mapping[str, Task]") -> dict[str, Any]:
    """Return, for each task and k, the tables of each method with their captions."""
    found: dict[str, Any] = {}
    for (task, k), group in groupby(group_runs(comparison), lambda runs: (runs.task, runs.k)):
        for runs in group:
            made: dict[str, Table] = {"Each class": tabulate_classes(runs), "Confusion": tabulate_confusion(runs)}
            if task in shown:
                made["Most confidently wrong"] = tabulate_wrong(runs, shown[task])
            found.setdefault(task, {}).setdefault(k, []).append((runs, made))
    return found


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


def write_report(
    folder: str | Path, comparison: Comparison, with_plots: bool = True, shown: "Mapping[str, Task] | None" = None
) -> list[Path]:
    """Write `report.md`, `report.html`, the plots as PNG and SVG, and `model_index.yaml` if there is one model.

    `shown` are the tasks by name whose most confidently wrong texts `report.html` shows. Return the paths of the
    files, without the SVGs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plots = write_plots(folder / "plots", comparison) if with_plots else {}
    page, html, model_index = folder / "report.md", folder / "report.html", folder / "model_index.yaml"
    write_whole(page, format_markdown(comparison, plots))
    write_whole(html, format_html(comparison, plots, shown))
    if len({record.model for record in comparison.records if record.method == comparison.reference}) > 1:
        return [page, html, *plots]
    write_whole(model_index, format_model_index(comparison))
    return [page, html, model_index, *plots]
