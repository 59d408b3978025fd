"""Differences of methods from the reference at each size of support sets, and what they cost."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import Comparison, MetricFormat, match_runs
from transformers_tart.evaluation.report.statistics import (
    Estimate,
    PairedTest,
    average,
    paired_test,
    wins_ties_losses,
)


@dataclass(frozen=True)
class Contrast:
    """A method against the reference at one k, over the support sets that both have."""

    method: str
    k: int
    difference: Estimate  # method minus reference, mean over tasks
    wins: tuple[int, int, int]  # tasks on which the method wins, ties and loses
    over_supports: PairedTest
    over_tasks: PairedTest
    left_out: int  # support sets that one of the two lacks
    cost: float | None  # cost of the reference, divided by that of the method


def cost_of(comparison: Comparison) -> tuple[str, Callable[[Record], float | None]]:
    """Return the unit of costs and the cost of a record: seconds of the CPUs where all records have them."""
    if all(record.cpu_seconds is not None for record in comparison.records):
        return "CPU seconds", lambda record: record.cpu_seconds
    return "seconds", lambda record: record.seconds


def contrast(comparison: Comparison, metric: MetricFormat) -> list[Contrast]:
    """Compare each other method with the reference, k by k; methods without a common support set are left out."""
    others = [method for method in comparison.methods if method != comparison.reference]
    found = [each for method in others for each in _contrast_method(comparison, metric, method)]
    return sorted(found, key=lambda each: (each.k, others.index(each.method)))


def _contrast_method(comparison: Comparison, metric: MetricFormat, method: str) -> list[Contrast]:
    reference, sign = comparison.reference, 1 if metric.higher_is_better else -1
    records = [record for record in comparison.records if record.method in (reference, method)]
    costs = match_runs(records, [reference, method], cost_of(comparison)[1])
    contrasts = []
    for k in sorted({record.k for record in records}):
        matched = match_runs([record for record in records if record.k == k], [reference, method], metric.value)
        groups = [group for group in matched.groups if len(group.values) == 2]
        if not groups:
            continue
        differences = [
            {seed: group.values[method][seed] - value for seed, value in group.values[reference].items()}
            for group in groups
        ]
        means = [fmean(task.values()) for task in differences]
        over_supports = paired_test([value for task in differences for value in task.values()])
        tasks = {group.task for group in groups}
        own, other = (costs.mean(name, sorted(tasks), k) for name in (reference, method))
        contrasts.append(
            Contrast(
                method=method,
                k=k,
                difference=average(differences),
                wins=wins_ties_losses([sign * mean for mean in means]),
                over_supports=over_supports,
                over_tasks=paired_test(means),
                left_out=matched.counted + matched.left_out - over_supports.pairs,
                cost=own.mean / other.mean if own and other and other.mean > 0 else None,
            )
        )
    return contrasts
