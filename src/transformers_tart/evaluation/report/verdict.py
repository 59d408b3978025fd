"""The result of a comparison in words: who wins where, by how much, and at what cost."""

from collections import defaultdict
from collections.abc import Sequence

from transformers_tart.evaluation.report.comparison import Comparison, MetricFormat
from transformers_tart.evaluation.report.contrasts import Contrast, contrast, cost_of
from transformers_tart.evaluation.report.statistics import MIN_DRAWS


AHEAD, BEHIND, UNCLEAR = "ahead of", "behind", "no clear difference from"
EQUAL_COST = 1.05  # largest ratio that counts as equal
FROM_DIGITS = 10  # ratio from which decimals are left out


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
