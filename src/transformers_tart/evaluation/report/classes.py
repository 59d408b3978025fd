"""Confusion of classes, and the measures of each class."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import Comparison
from transformers_tart.evaluation.report.tables import NOTHING, Cell, Table, format_seeds, shorten


if TYPE_CHECKING:
    import numpy as np

    from transformers_tart.evaluation.tasks.task import Item, Task

MAX_MATRIX = 20  # classes; of more, only the pairs that are confused most are listed
MAX_PAIRS = 15
MAX_WRONG = 10
MAX_TEXT = 400  # characters


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
