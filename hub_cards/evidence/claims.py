"""The claims of the paper beside our figures, and the runs of the plan that were not made, as tables in markdown."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from measure import BINARY, FINE_TUNING, FOUR, TABLES

from transformers_tart.evaluation.records import read_records
from transformers_tart.evaluation.report.comparison import METRIC_FORMATS, Group, match_runs, mean_over_tasks
from transformers_tart.evaluation.report.tables import Table


ROWS = Path(__file__).parent
ACCURACY = METRIC_FORMATS["accuracy"]


@dataclass(frozen=True)
class Claim:
    """TART against the best of its peers, on the support sets that all of them were measured on."""

    paper: str  # difference in points that the paper reports, if it does
    table: str
    peers: tuple[str, ...]
    sets: tuple[str, ...]
    k: int

    @cached_property
    def groups(self) -> list[Group]:
        """Accuracies of each method by the same support sets of each task."""
        methods = ("tart", *self.peers)
        records = [r for r in read_records(ROWS / self.table) if r.task in self.sets and r.k == self.k]
        found = match_runs(records, methods, ACCURACY.value).groups
        return [group for group in found if group.values.keys() >= set(methods)]

    def mean(self, method: str) -> float:
        """Return the mean over tasks of the means over their support sets, in percent."""
        found = mean_over_tasks(self.groups, method)
        assert found is not None
        return ACCURACY.factor * found.mean

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
        counts = sorted({group.seeds for group in self.groups})
        means = [f"{self.mean(method):.1f}" for method in ("tart", self.best)]
        sizes = [str(self.k), str(len(self.groups)), " to ".join(map(str, counts))]
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
    header = ["table", "methods", "k", "support sets made", "sets"]
    rows = [[name, *row] for name in TABLES for row in find_gaps(name)]
    yield Table.of(header, rows, numbers_from=len(header)).markdown()


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
