"""Differences of methods from the reference at each size of support sets, and the verdict on them in words."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from transformers_tart.evaluation.records import Record
from transformers_tart.evaluation.report.comparison import Comparison, MetricFormat, match_runs
from transformers_tart.evaluation.report.statistics import (
    MIN_DRAWS,
    Estimate,
    PairedTest,
    average,
    paired_test,
    wins_ties_losses,
)


AHEAD, BEHIND, UNCLEAR = "ahead of", "behind", "no clear difference from"
EQUAL_COST = 1.05  # largest ratio that counts as equal
FROM_DIGITS = 10  # ratio from which decimals are left out


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


def judge_contrast(each: Contrast, metric: MetricFormat) -> str:
    """Return whether the reference is ahead or behind, or that the interval of the difference includes 0."""
    difference = each.difference
    if difference.mean == 0 or (difference.half_width is not None and difference.low <= 0 <= difference.high):
        return UNCLEAR
    return AHEAD if (difference.mean < 0) == metric.higher_is_better else BEHIND


def describe_results(comparison: Comparison) -> list[str]:
    """Describe the reference against each other method by the first metric.

    Return paragraphs: an overview, how to read the numbers, and one for each k.
    """
    metric, reference = comparison.metrics[0], comparison.reference
    by_size = defaultdict(list)
    for each in contrast(comparison, metric):
        by_size[each.k].append(each)
    if not by_size:
        return [f"{reference} has no support set in common with another method, so nothing is compared."]
    places = {k: f"at k = {k}" if comparison.size == "k" else f"with {k} {comparison.size}" for k in by_size}
    counts = "; ".join(f"{places[k]} {_count(found, metric)}" for k, found in by_size.items())
    others = _number(len(comparison.methods) - 1, "other method")
    overview = f"{metric.title} of {reference} against {others}: {counts}."
    if any(judge_contrast(each, metric) == UNCLEAR for found in by_size.values() for each in found):
        overview += " Other differences are not clear."
    unit = cost_of(comparison)[0]
    reading = (
        f"Differences are means over the tasks that both have, with ± half the 95% interval from {MIN_DRAWS} seeds "
        f"on; without an interval they may be chance. In brackets: on how many tasks {reference} is better, and its "
        f"{unit} divided by those of the other method."
    )
    sizes = [f"{places[k].capitalize()}: {_describe(found, metric)}." for k, found in by_size.items()]
    return [overview, reading, *sizes]


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _count(contrasts: Sequence[Contrast], metric: MetricFormat) -> str:
    verdicts = [judge_contrast(each, metric) for each in contrasts]
    ahead, behind = (verdicts.count(each) or "none" for each in (AHEAD, BEHIND))
    return f"{AHEAD} {ahead} and {BEHIND} {behind} of {len(contrasts)}"


def _describe(contrasts: Sequence[Contrast], metric: MetricFormat) -> str:
    """List the methods that the reference is ahead of, then the others, each with the largest difference first."""
    found = defaultdict(list)
    for each in sorted(contrasts, key=lambda each: -abs(each.difference.mean)):
        verdict = judge_contrast(each, metric)
        found[verdict].append(_describe_contrast(each, metric, verdict))
    return "; ".join(f"{verdict} {_join(found[verdict])}" for verdict in (AHEAD, BEHIND, UNCLEAR) if found[verdict])


def _describe_contrast(each: Contrast, metric: MetricFormat, verdict: str) -> str:
    gain = -each.difference if metric.higher_is_better else each.difference  # of the reference
    size = (gain if verdict != BEHIND else -gain).format(metric.factor, metric.digits, verdict == UNCLEAR)
    amount = f"{size} {metric.difference_unit}".rstrip()
    lost, ties, won = each.wins
    details = [f"{won} of {_number(won + ties + lost, 'task')}"]
    if each.cost is not None:
        is_equal = 1 / EQUAL_COST <= each.cost <= EQUAL_COST
        ratio = f"{each.cost:,.0f}" if each.cost >= FROM_DIGITS or is_equal else f"{each.cost:.2g}"
        details.append(f"{ratio} times the cost")
    if verdict == UNCLEAR:
        return f"{each.method} ({', '.join([amount, *details])})"
    return f"{each.method} by {amount} ({', '.join(details)})"
