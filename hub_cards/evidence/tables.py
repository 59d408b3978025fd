"""Write the tables of the cards from the rows beside this file, and print how TART compares with each peer.

    python tables.py

Each card holds its tables between two comments. Methods are compared on the support sets that all of a table have.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers_tart.evaluation.records import Record, read_records
from transformers_tart.evaluation.report.comparison import METRIC_FORMATS, Matched, MetricFormat, match_runs
from transformers_tart.evaluation.report.tables import tabulate_means, tabulate_tasks
from transformers_tart.files import write_whole


ROWS = Path(__file__).parent
MARKS = re.compile(r"(<!-- tables of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
SECONDS = MetricFormat("cpu_seconds", "CPU seconds", digits=1, higher_is_better=False)


@dataclass(frozen=True)
class Group:
    """Methods that are compared on the same support sets."""

    title: str
    methods: tuple[str, ...]


GROUPS = (
    Group(
        "Same embeddings, no training",
        (
            "tart",
            "tart_without_hints",
            "logistic_regression",
            "logistic_regression_cv",
            "nearest_centroid",
            "tfidf",
            "majority",
        ),
    ),
    Group("SetFit", ("tart", "setfit")),
    Group("Prompting of the same model", ("tart", "prompting", "prompting_calibrated")),
    Group("Protocols", ("tart", "tart_without_hints", "tart_vanilla", "tart_loo")),
    Group("Fine-tuning", ("tart", "fine_tune_head", "fine_tune_last", "lora", "fine_tune")),
)


def value_of(record: Record, metric: MetricFormat) -> float | None:
    """Return a metric of a record, or its CPU seconds."""
    return record.cpu_seconds if metric is SECONDS else metric.value(record)


def peers_of(records: list[Record], group: Group) -> set[str]:
    """Return the measured methods of a group besides TART on the model's own protocol."""
    return {r.method for r in records if r.method in group.methods} - {"tart", "tart_without_hints"}


def select(records: list[Record], group: Group, metric: MetricFormat) -> Matched:
    """Return the runs on tasks and sizes where most methods of a group were measured."""
    present = [method for method in group.methods if any(r.method == method for r in records)]
    peers = peers_of(records, group)
    cells = {(r.task, r.k) for r in records if r.method in peers and r.error is None}
    kept = [r for r in records if (r.task, r.k) in cells]
    return match_runs(kept, present, lambda record: value_of(record, metric))


def write_tables(table: str) -> Iterator[str]:
    """Yield the tables of a model in markdown."""
    records = read_records(ROWS / table)
    if not records:
        yield "No results yet with this backbone."
    for group in GROUPS:
        if not peers_of(records, group):
            continue
        yield f"### {group.title}\n"
        for metric in (METRIC_FORMATS["accuracy"], METRIC_FORMATS["log_loss"], SECONDS):
            yield tabulate_means(select(records, group, metric), metric).markdown() + "\n"
        matched = select(records, group, METRIC_FORMATS["accuracy"])
        details = tabulate_tasks(matched, METRIC_FORMATS["accuracy"]).markdown()
        yield f"<details><summary>Accuracy of each set</summary>\n\n{details}\n\n</details>\n"


def fill(card: str) -> str:
    """Return the text of a card with its tables."""
    return MARKS.sub(lambda found: "\n".join([found[1], *write_tables(found[2]), found[3]]), card)


def main() -> None:
    """Write the tables into the cards."""
    for path in sorted(ROWS.parent.glob("*/*.md")):
        card = path.read_text(encoding="utf-8")
        if (filled := fill(card)) != card:
            write_whole(path, filled)
            print(f"wrote {path.parent.name}")


if __name__ == "__main__":
    main()
