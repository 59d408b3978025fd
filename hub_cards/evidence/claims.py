"""The claims of the paper beside our figures, and the runs of the plan that were not made, as tables in markdown."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from measure import BINARY, FINE_TUNING, FOUR, TABLES

from transformers_tart.evaluation.records import read_records
from transformers_tart.evaluation.report.tables import Table


ROWS = Path(__file__).parent


@dataclass(frozen=True)
class Claim:
    """TART against the best of its peers, on the support sets that all of them were measured on."""

    paper: str  # difference in points that the paper reports, if it does
    table: str
    peers: tuple[str, ...]
    sets: tuple[str, ...]
    k: int

    @cached_property
    def found(self) -> dict[str, list[dict[str, float]]]:
        """Accuracies in percent of each method on each support set of each task."""
        runs: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        for record in read_records(ROWS / self.table):
            if record.task in self.sets and record.k == self.k and record.error is None:
                runs[record.task, record.seed][record.method] = 100 * record.metrics["accuracy"]
        found = defaultdict(list)
        for (task, _), values in runs.items():
            if values.keys() >= {"tart", *self.peers}:
                found[task].append(values)
        return found

    def mean(self, method: str) -> float:
        """Return the mean over tasks of the means over their support sets."""
        return fmean(fmean(values[method] for values in runs) for runs in self.found.values())

    @property
    def best(self) -> str:
        """The peer with the best mean."""
        return max(self.peers, key=self.mean)

    @property
    def difference(self) -> float:
        """Points of TART over the best peer."""
        return self.mean("tart") - self.mean(self.best)

    def cells(self) -> list[str]:
        """Return the row of the claim."""
        counts = sorted({len(runs) for runs in self.found.values()})
        means = [f"{self.mean(method):.1f}" for method in ("tart", self.best)]
        sizes = [str(self.k), str(len(self.found)), " to ".join(map(str, counts))]
        return [self.table, self.best, *sizes, *means, f"{self.difference:+.1f}", self.paper]


PROMPTING = tuple(
    Claim(paper, table, (peer,), BINARY, 64)
    for table in ("smollm2-135m", "gemma3-270m")
    for peer, paper in (("prompting", "+18.4"), ("prompting_calibrated", ""))
)
TRAINING = (
    Claim("-3.1", "smollm2-135m", FINE_TUNING, FOUR, 64),
    Claim("-3.1", "smollm2-135m", FINE_TUNING, FOUR, 256),
)


def write_claims() -> Iterator[str]:
    """Yield the table of the paper's claims."""
    header = ["model", "best peer", "k", "sets", "support sets of each", "TART, %", "peer, %", "difference", "paper"]
    yield Table.of(header, [claim.cells() for claim in (*PROMPTING, *TRAINING)], numbers_from=2).markdown()
    yield f"\nMean difference to fine-tuning: {fmean(claim.difference for claim in TRAINING):+.1f} points."


def write_gaps() -> Iterator[str]:
    """Yield the table of the runs that were planned and not made."""
    rows = [[name, *row] for name in TABLES for row in find_gaps(name)]
    yield Table.of(["table", "methods", "k", "support sets made", "sets"], rows, numbers_from=9).markdown()


def find_gaps(name: str) -> list[list[str]]:
    """Return methods, size, number of support sets and sets of the runs of a table that were not made."""
    made = {record.key for record in read_records(ROWS / name)}
    done: dict[tuple[str, int, str], list[bool]] = defaultdict(list)
    for key in TABLES[name].runs:
        task, k, _, method = key
        done[method, k, task].append(key in made)
    sets = defaultdict(list)
    for (method, k, task), each in sorted(done.items()):
        if not all(each):
            sets[method, k, f"{sum(each)} of {len(each)}"].append(task)
    methods = defaultdict(list)
    for (method, k, count), tasks in sets.items():
        methods[k, count, ", ".join(tasks)].append(method)
    return [[", ".join(names), str(k), count, tasks] for (k, count, tasks), names in sorted(methods.items())]
