"""Pairs of a naive and our way to do the same work, timed in turn, and the table of their times."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import timer

from transformers_tart.bench.machine import dtype_name
from transformers_tart.bench.workload import Workload


Clock = Callable[[], float]

# Largest rounding difference, relative to the root mean square of the values or to 1, whichever is larger.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 2e-2}
COLUMNS = ("pair", "model", "dtype", "device", "k", "queries", "naive, s", "ours, s", "naive/ours", "computed", "diff")


@dataclass
class Meter:
    """A clock, and the estimated time of the part of a work that was left out."""

    clock: Clock = timer  # torch's waits for the accelerator
    left_out: float = 0.0  # seconds

    @contextmanager
    def sample(self, computed: int, total: int) -> Iterator[None]:
        """Time a block that computes `computed` of `total` equally costly items."""
        start = self.clock()
        yield
        self.left_out += (self.clock() - start) * (total / computed - 1)


@dataclass(frozen=True)
class Comparison:
    """A naive and our way to do the same work."""

    naive: Callable[[Meter], Tensor]  # returns some rows of the result
    ours: Callable[[], Tensor]  # returns all rows of the result
    rows: list[int]  # that the naive way computes
    size: int  # number of all rows
    model: str
    dtype: torch.dtype
    agrees: bool = True  # both ways must give the same values; else only the number of rows is compared
    passes: tuple[int, int] | None = None  # forward passes for `rows` and for all, where one is not a row

    @property
    def computed(self) -> tuple[int, int]:
        """Forward passes that the naive way computes, and that it needs for the whole work."""
        return self.passes or (len(self.rows), self.size)


@dataclass(frozen=True)
class Pair:
    """A comparison of the command line, with its default sizes."""

    name: str
    k: int | None  # `None` for a comparison without a support set
    queries: int
    build: Callable[[Workload], Comparison]  # loads and draws what both ways need


@dataclass(frozen=True)
class Times:
    """Seconds of each run, and the largest difference of the two results."""

    naive: list[float]  # for the items that the naive way computed
    scaled: list[float]  # of the naive way, for the whole work
    ours: list[float]
    difference: float | None  # `None` for results that are not comparable


def check(comparison: Comparison, naive: Tensor, ours: Tensor) -> float | None:
    """Return the largest difference of both results, of which a ValueError is raised beyond rounding."""
    if len(naive) != len(comparison.rows) or len(ours) != comparison.size:
        raise ValueError(
            f"The naive side gives {len(naive)} of {len(comparison.rows)} rows, ours {len(ours)} of "
            f"{comparison.size}: they do not do the same work."
        )
    if not comparison.agrees:
        return None
    naive, ours = naive.detach().float().cpu(), ours.detach().float().cpu()[comparison.rows]
    if naive.shape != ours.shape:
        raise ValueError(f"The naive side gives values of shape {tuple(naive.shape)}, ours {tuple(ours.shape)}.")
    difference = float((naive - ours).abs().max() / naive.square().mean().sqrt().clamp_min(1.0))
    limit = TOLERANCE[comparison.dtype]
    if not difference <= limit:  # NaN included
        raise ValueError(
            f"The naive side and ours differ by {difference:.2g} where {limit:.0e} is rounding in {comparison.dtype}: "
            "they do not compute the same, so their times cannot be compared."
        )
    return difference


def measure(
    comparison: Comparison, repeats: int, clock: Clock = timer, progress: Callable[[], object] = lambda: None
) -> Times:
    """Time both ways in turn, the naive one first, after one run of each that is not counted."""
    runs, differences = [], []
    for _ in range(repeats + 1):
        meter, start = Meter(clock), clock()
        naive = comparison.naive(meter)
        naive_seconds = clock() - start
        progress()
        start = clock()
        ours = comparison.ours()
        our_seconds = clock() - start
        progress()
        differences.append(check(comparison, naive, ours))
        runs.append((naive_seconds, naive_seconds + meter.left_out, our_seconds))
    found = [difference for difference in differences if difference is not None]
    naive_times, scaled, our_times = (list(column) for column in zip(*runs[1:], strict=True))
    return Times(naive_times, scaled, our_times, max(found, default=None))


def pair_result(pair: Pair, workload: Workload, comparison: Comparison, times: Times) -> dict[str, Any]:
    """Collect the times of a pair, with the sizes they were measured at, for JSON and [`format_row`]."""
    computed, total = comparison.computed
    return {
        "pair": pair.name,
        "model": comparison.model,
        "dtype": dtype_name(comparison.dtype),
        "device": str(workload.device),
        "k": None if pair.k is None else workload.k,
        "queries": workload.queries,
        "computed": computed,
        "total": total,
        "times": asdict(times),
        "ratio": median(times.scaled) / median(times.ours),
    }


def format_heading(repeats: int) -> str:
    """Return a legend and the first lines of the table."""
    return (
        f"median (smallest..largest) of {repeats} runs each, naive and ours in turn; the naive side ran as many items "
        "as in the\ncolumn `computed`, and its time is scaled to all of them; `diff`: largest difference of the "
        "results\n\n" + _line(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|"
    )


def format_row(result: dict[str, Any]) -> str:
    """Return the line of a pair in the table."""
    times = result["times"]
    cells = [result["pair"], result["model"], result["dtype"], result["device"]]
    cells += ["-" if result["k"] is None else str(result["k"]), str(result["queries"])]
    cells += [_spread(times["scaled"]), _spread(times["ours"]), f"{result['ratio']:.3g}"]
    cells += [f"{result['computed']} of {result['total']}"]
    return _line([*cells, "-" if times["difference"] is None else f"{times['difference']:.1e}"])


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.3g} ({min(seconds):.3g}..{max(seconds):.3g})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
