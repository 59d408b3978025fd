"""Two ways to the same work, timed in turn."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


Clock = Callable[[], float]

# Rounding, in units of the root mean square of the values, or of 1 where they are smaller.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 2e-2}


@dataclass
class Meter:
    """Notes what the part of a work that was left out would have taken.

    Attributes:
        clock: seconds, as `time.perf_counter` gives them.
        device: where the work is done; it is waited for at both ends of a part.
        left_out: seconds.
    """

    clock: Clock = time.perf_counter
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    left_out: float = 0.0

    def now(self) -> float:
        """The time at which all work that was begun is done."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return self.clock()

    @contextmanager
    def sample(self, computed: int, total: int) -> Iterator[None]:
        """Time a part of which `computed` of `total` equally costly items are computed."""
        start = self.now()
        yield
        self.left_out += (self.now() - start) * (total / computed - 1)


@dataclass(frozen=True)
class Comparison:
    r"""
    A work and two ways to do it.

    Args:
        naive (`Callable`):
            From a [`Meter`] to the rows of the result that it computes.
        ours (`Callable`):
            From nothing to all rows of the result.
        rows (`list[int]`):
            Which rows the naive way computes.
        size (`int`):
            Number of all rows.
        computed (`int`), total (`int`):
            Forward passes that the naive way makes, and that the whole work needs.
        model (`str`), dtype (`torch.dtype`), device (`torch.device`):
            What is run, how and where.
        agrees (`bool`):
            Whether both ways must give the same values; else only as many rows.
    """

    naive: Callable[[Meter], Tensor]
    ours: Callable[[], Tensor]
    rows: list[int]
    size: int
    computed: int
    total: int
    model: str
    dtype: torch.dtype
    device: torch.device
    agrees: bool = True


@dataclass(frozen=True)
class Times:
    """What was measured: seconds of each repeat, and the largest difference of the two results.

    Attributes:
        naive: of the items that were computed.
        scaled: naive, of the whole work.
        ours: of the whole work.
        difference: as [`check`] gives it; `None` for results that are not comparable.
    """

    naive: list[float]
    scaled: list[float]
    ours: list[float]
    difference: float | None


def check(comparison: Comparison, naive: Tensor, ours: Tensor) -> float | None:
    """The largest difference of both results, in units of the naive values' root mean square, of 1 at least.

    Raises:
        ValueError: When the results differ in shape or by more than rounding.
    """
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
            "they do not compute the same, and their times say nothing."
        )
    return difference


def measure(
    comparison: Comparison,
    repeats: int,
    clock: Clock = time.perf_counter,
    progress: Callable[[], object] = lambda: None,
) -> Times:
    r"""
    Time both ways in turn, naive first, after one run of each that is not counted, in which ours finds how a backbone
    reads prompts.

    Args:
        comparison ([`Comparison`]):
            The two ways.
        repeats (`int`):
            Counted runs of each.
        clock (`Callable`, *optional*):
            Seconds.
        progress (`Callable`, *optional*):
            Called after each run.

    Raises:
        ValueError: When the results of both ways differ.
    """
    naive, scaled, ours, differences = [], [], [], []
    for repeat in range(repeats + 1):
        meter = Meter(clock, comparison.device)
        start = meter.now()
        naive_result = comparison.naive(meter)
        seconds = meter.now() - start
        progress()
        start = meter.now()
        our_result = comparison.ours()
        our_seconds = meter.now() - start
        progress()
        differences.append(check(comparison, naive_result, our_result))
        if repeat > 0:
            naive.append(seconds)
            scaled.append(seconds + meter.left_out)
            ours.append(our_seconds)
    found = [difference for difference in differences if difference is not None]
    return Times(naive, scaled, ours, max(found, default=None))


__all__ = ["Clock", "Comparison", "Meter", "Times", "check", "measure"]
