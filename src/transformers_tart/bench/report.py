"""What a pair gave, as a line of a table and for JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from transformers_tart.bench.machine import dtype_name
from transformers_tart.bench.pairs.base import Pair
from transformers_tart.bench.timing import Comparison, Times
from transformers_tart.bench.workload import Workload


COLUMNS = ("pair", "model", "dtype", "device", "k", "queries", "naive, s", "ours, s", "naive/ours", "computed", "diff")


@dataclass(frozen=True)
class PairResult:
    """A pair, on what it was run, and its times.

    Attributes:
        pair: name.
        model: what was run.
        dtype: of the model.
        device: where it was run.
        k: examples of the support set, if there is one.
        queries: what was classified or embedded.
        computed: items that the naive side computed.
        total: items of the whole work.
        times: seconds of every repeat.
    """

    pair: str
    model: str
    dtype: str
    device: str
    k: int | None
    queries: int
    computed: int
    total: int
    times: Times

    @classmethod
    def of(cls, pair: Pair, workload: Workload, comparison: Comparison, times: Times) -> "PairResult":
        """What the comparison of a pair gave."""
        return cls(
            pair=pair.name,
            model=comparison.model,
            dtype=dtype_name(comparison.dtype),
            device=str(comparison.device),
            k=None if pair.k is None else workload.k,
            queries=workload.queries,
            computed=comparison.computed,
            total=comparison.total,
            times=times,
        )

    @property
    def ratio(self) -> float:
        """Median time of the naive side for the whole work, in medians of ours."""
        return median(self.times.scaled) / median(self.times.ours)

    def as_dict(self) -> dict[str, Any]:
        """All of it, every single time too, for JSON."""
        return {**asdict(self), "ratio": self.ratio}


def spread(seconds: Sequence[float]) -> str:
    """Median, smallest and largest."""
    return f"{median(seconds):.3g} ({min(seconds):.3g}..{max(seconds):.3g})"


def format_heading(repeats: int) -> str:
    """What the columns say, and their names."""
    return (
        f"median (smallest..largest) of {repeats} runs each, naive and ours in turn; of the naive side as many items "
        "as the column\n`computed` says were run, and its time scaled to all of them; `diff`: largest difference of "
        "the two results\n\n" + _line(COLUMNS) + "\n" + "|---" * len(COLUMNS) + "|"
    )


def format_row(result: PairResult) -> str:
    """A line of the table."""
    times = result.times
    cells = [result.pair, result.model, result.dtype, result.device]
    cells += ["-" if result.k is None else str(result.k), str(result.queries)]
    cells += [spread(times.scaled), spread(times.ours), f"{result.ratio:.3g}", f"{result.computed} of {result.total}"]
    return _line([*cells, "-" if times.difference is None else f"{times.difference:.1e}"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


__all__ = ["PairResult", "format_heading", "format_row", "spread"]
