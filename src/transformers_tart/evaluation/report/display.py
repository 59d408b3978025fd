"""How numbers and names are written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.matching import Value
from transformers_tart.evaluation.report.statistics import Estimate


NOTHING = "–"
LONGEST = 200  # characters of a message
MARKUP = re.compile(r"([\\|<*`\[\]])")


@dataclass(frozen=True)
class Metric:
    """A metric and how it is written.

    Attributes:
        name: in the records, and on the Hub.
        title: for people.
        factor: from the records to what is shown.
        unit: of what is shown, "" where it has none.
        difference_unit: of a difference.
        digits: after the point.
        higher_is_better: which way is better.
    """

    name: str
    title: str
    factor: float = 1.0
    unit: str = ""
    difference_unit: str = ""
    digits: int = 3
    higher_is_better: bool = True

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def value(self) -> Value:
        """What it is of a record, in the records' unit."""
        return lambda record: record.metrics.get(self.name)

    def write(self, number: float) -> str:
        """A value of the records as it is shown."""
        return f"{self.factor * number:.{self.digits}f}"

    def write_estimate(self, found: Estimate | None) -> str:
        """A mean with its interval, as far as they are known."""
        if found is None:
            return NOTHING
        spread = "" if found.half_width is None else f" ± {self.write(found.half_width)}"
        return self.write(found.mean) + spread

    def write_difference(self, found: Estimate) -> str:
        """A difference with its sign, and its interval."""
        digits = self.digits + 1
        spread = "" if found.half_width is None else f" ± {self.factor * found.half_width:.{digits}f}"
        return f"{self.factor * found.mean:+.{digits}f}{spread}"


_ALL = (
    Metric("accuracy", "Accuracy", 100.0, "%", "points", 1),
    Metric("macro_f1", "Macro F1", 100.0, "%", "points", 1),
    Metric("matthews_correlation", "Matthews correlation"),
    Metric("log_loss", "Log loss", 1.0, "nats", "nats", higher_is_better=False),
    Metric("brier_score", "Brier score", higher_is_better=False),
    Metric("calibration_error", "Expected calibration error", 100.0, "%", "points", 1, False),
)
METRICS = {metric.name: metric for metric in _ALL}


def measured_metrics(records: Sequence[Record]) -> list[str]:
    """Names of the known metrics that some record has."""
    return [name for name in METRICS if any(name in record.metrics for record in records)]


def plain(text: str) -> str:
    """A name in markdown, where nothing of it is taken for markup."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A message in a cell of a markdown table: its first line, as code."""
    line = (text.strip().splitlines() or [""])[0]
    line = line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
    return "`" + line.replace("|", "\\|").replace("`", "'") + "`" if line else NOTHING


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """A markdown table; the columns from `numbers_from` on are aligned right."""
    rule = "|---" * min(numbers_from, len(header)) + "|--:" * max(0, len(header) - numbers_from) + "|"
    return "\n".join([_line(header), rule, *map(_line, rows)])


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"


def write_seeds(seeds: Sequence[int]) -> str:
    """Numbers, those in a row as a range."""
    ordered, runs = sorted(set(seeds)), list[list[int]]()
    for seed in ordered:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


__all__ = ["METRICS", "NOTHING", "Metric", "code", "measured_metrics", "plain", "table", "write_seeds"]
