"""Write the tables of the cards from the rows beside this file, and print how TART compares with each peer.

    python tables.py

Each card holds its tables between two comments. Methods are compared on the support sets that all of a table have.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from claims import write_claims, write_gaps
from measure import FOUR
from model_index import add_results

from transformers_tart.evaluation.records import Record, read_records
from transformers_tart.evaluation.report.comparison import METRIC_FORMATS, Matched, MetricFormat, match_runs
from transformers_tart.evaluation.report.tables import tabulate_means, tabulate_tasks
from transformers_tart.files import write_whole


ROWS = Path(__file__).parent
CARDS = (ROWS.parents[1] / "README.md", *sorted(ROWS.parent.glob("*/*.md")))
MARKS = re.compile(r"(<!-- tables of (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
SECONDS = MetricFormat("cpu_seconds", "CPU seconds", digits=1, higher_is_better=False)


HEADLINE = {"smollm2-135m": "SmolLM2-135M", "minilm": "all-MiniLM-L6-v2"}  # the tables of README's, and their names
HEADLINE_RUN = (64, 42)  # k, and seed
PEERS = {
    "tart": "**TART**",
    "tart_without_hints": "TART without hints",
    "logistic_regression": "logistic regression on the same embeddings",
    "logistic_regression_cv": "logistic regression, tuned",
    "nearest_centroid": "nearest centroid",
    "setfit": "SetFit",
    "prompting": "prompting",
    "prompting_calibrated": "calibrated prompting",
    "fine_tune_head": "fine-tuning, of a head",
    "fine_tune_last": "fine-tuning, of the last blocks",
    "lora": "fine-tuning, LoRA",
    "fine_tune": "fine-tuning, of everything",
    "tfidf": "TF-IDF and logistic regression",
}


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
    unasked = {"nearest_centroid"} if metric.name == "log_loss" else set()  # its answers have no probabilities
    present = [m for m in group.methods if m not in unasked and any(r.method == m for r in records)]
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


def write_headline() -> Iterator[str]:
    """Yield the table of README: accuracy and CPU seconds of all methods on the same four support sets."""
    cells = {}
    for table in HEADLINE:
        found = [r for r in read_records(ROWS / table) if (r.task in FOUR, r.k, r.seed) == (True, *HEADLINE_RUN)]
        for method in PEERS:
            runs = [r for r in found if r.method == method and r.error is None]
            if len({r.task for r in runs}) == len(FOUR):
                accuracy = 100 * fmean(METRIC_FORMATS["accuracy"].value(r) for r in runs)
                cells[method, table] = f"{accuracy:.1f} | {fmean(r.cpu_seconds for r in runs):.0f}"
    yield f"| accuracy in %, CPU seconds | {' | | '.join(HEADLINE.values())} | |"
    yield "|---|" + "---:|" * 2 * len(HEADLINE)
    for method, name in PEERS.items():
        shown = [cells.get((method, table), " | ") for table in HEADLINE]
        if any(cell.strip(" |") for cell in shown):
            yield f"| {name} | {' | '.join(shown)} |"


SUMMARIES = {"peers": write_headline, "claims": write_claims, "gaps": write_gaps}


def fill(card: str, name: str) -> str:
    """Return the text of a card with its tables, and with its results in its metadata where it has any."""

    def tables_of(found: re.Match[str]) -> str:
        lines = SUMMARIES[found[2]]() if found[2] in SUMMARIES else write_tables(found[2])
        return "\n".join([found[1], *lines, found[3]])

    filled = MARKS.sub(tables_of, card)
    found = MARKS.search(card)
    return add_results(filled, found[2], name) if found and card.startswith("---") else filled


def main() -> None:
    """Write the tables into the cards."""
    for path in CARDS:
        card = path.read_text(encoding="utf-8")
        if (filled := fill(card, path.parent.name)) != card:
            write_whole(path, filled)
            print(f"wrote {path.parent.name}/{path.name}")


if __name__ == "__main__":
    main()
