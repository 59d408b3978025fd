"""Advice in words, from what was measured and nothing else."""

from transformers_tart.evaluation.diagnosis.curve import LearningCurve
from transformers_tart.evaluation.diagnosis.gaps import Gaps
from transformers_tart.evaluation.diagnosis.held_out import HeldOut
from transformers_tart.evaluation.diagnosis.layers import LayerScores
from transformers_tart.evaluation.diagnosis.regret import RegretPrediction
from transformers_tart.evaluation.diagnosis.shift import Shift
from transformers_tart.evaluation.report.statistics import Estimate


WORTH = 1.0  # points for twice the examples that are still worth labeling them


def advise(
    gaps: Gaps,
    shift: Shift,
    predicted: RegretPrediction | None,
    regret: Estimate,
    curve: LearningCurve,
    held_out: HeldOut | None,
    layers: LayerScores | None,
) -> tuple[str, ...]:
    """One sentence or a few on each question: what limits, how many examples, which layers, whether to trust."""
    return (
        _on_limits(gaps),
        _on_size(curve),
        _on_layers(layers),
        _on_trust(shift, predicted, regret, held_out),
    )


def bounds(found: Estimate) -> tuple[float, float] | None:
    """The interval, where there is one."""
    return None if found.half_width is None else (found.mean - found.half_width, found.mean + found.half_width)


def _is_above(found: Estimate) -> bool:
    interval = bounds(found)
    return interval is not None and interval[0] > 0


def _on_limits(gaps: Gaps) -> str:
    """Each part limits, or it does not: its gap is below a point; or that is undecided."""
    limits, innocent, undecided = list[str](), list[str](), list[str]()
    for name, difference, gap, remedy in (
        ("the representation", "fine-tuning minus linear probe", gaps.representation, "; try another backbone"),
        ("the reasoner", "linear probe minus TART", gaps.remaining, ""),
        ("what the embeddings lose", "prompting minus linear probe", _negative(gaps.reasoning), "; prompt instead"),
    ):
        if gap is None:
            continue
        interval, said = bounds(gap), f"{name} ({difference}: {_points(gap)}"
        if interval is not None and interval[0] > 0:
            limits.append(f"{said}{remedy})")
        elif interval is not None and interval[1] < WORTH:
            innocent.append(f"{said})")
        else:
            undecided.append(f"{said})")
    parts = [", ".join(limits)] * bool(limits)
    parts += [f"not {' nor '.join(innocent)}"] * bool(innocent)
    parts += [f"undecided, which more seeds may change: {', '.join(undecided)}"] * bool(undecided)
    untested = "" if gaps.representation is not None else " Without fine-tuning, the representation was not tested."
    return f"**What limits:** {'; '.join(parts)}.{untested}"


def _negative(found: Estimate | None) -> Estimate | None:
    return None if found is None else Estimate(-found.mean, found.half_width)


def _on_size(curve: LearningCurve) -> str:
    sizes, slope = sorted(curve.accuracies), curve.slope
    last = sizes[-1]
    if slope is None:
        return "**More examples:** unknown; k is too small for a smaller size with an example of each class."
    interval = bounds(slope)
    measured = f"From k = {sizes[0]} to {last}, twice the examples brought {_points(slope)}"
    if interval is None:
        return f"**More examples:** {measured}, with one seed; more seeds would tell whether that is chance."
    if interval[0] > 0:
        reached = min(100.0, curve.accuracies[last].mean + slope.mean)
        hint = "worth it" if slope.mean >= WORTH else "of little use"
        return (
            f"**More examples:** {hint}. {measured}; should that go on, k = {2 * last} would reach about "
            f"{reached:.0f}%."
        )
    if interval[1] < WORTH:
        return f"**More examples:** hardly worth it. {measured}."
    return f"**More examples:** not shown to help. {measured}; more seeds would tell."


def _on_layers(layers: LayerScores | None) -> str:
    if layers is None:
        return "**Layers:** unknown; no class has a second example that could be held out."
    everything = f"all layers together are right about {100 * layers.all_layers:.0f}% of the held-out examples"
    if layers.better:
        best = max(layers.better, key=lambda score: score.accuracy)
        return (
            f"**Layers:** read layer {best.layer} alone (`layers={best.layer}`): it is right about "
            f"{100 * best.accuracy:.0f}%, while {everything} (p = {best.p_value:.2g})."
        )
    return (
        f"**Layers:** keep all: {everything}, the best single one, layer {layers.best.layer}, about "
        f"{100 * layers.best.accuracy:.0f}%, and no single one is shown to be better."
    )


def _on_trust(shift: Shift, predicted: RegretPrediction | None, regret: Estimate, held_out: HeldOut | None) -> str:
    doubts = _doubts_of_support(held_out)
    if shift.is_outside:
        doubts.append(
            f"the task lies outside what the reasoner was trained on: {shift.percentile:.0f}% of new training tasks "
            f"are nearer ({_most(shift)}){_consequence(predicted)}"
        )
    if _is_above(regret):
        doubts.append(f"a usual classifier has a log loss that is {regret.mean:.3f} lower on the test texts")
    if doubts:
        return f"**Trust:** with care; {'; '.join(doubts)}."
    return "**Trust:** nothing measured here speaks against it."


def _doubts_of_support(held_out: HeldOut | None) -> list[str]:
    if held_out is None:
        return ["nothing could be held out of the support sets, so they say nothing of the accuracy"]
    doubts = []
    if held_out.is_near_chance:
        doubts.append(
            f"the accuracy on held-out examples, {100 * held_out.accuracy:.0f}%, is not shown to be above chance, "
            f"{100 * held_out.chance:.0f}%"
        )
    if _is_above(held_out.excess):
        doubts.append(
            f"the probabilities are too high: on held-out examples {100 * held_out.confidence:.0f}% on average, where "
            f"{100 * held_out.accuracy:.0f}% are right"
        )
    return doubts


def _most(shift: Shift) -> str:
    """In what a task differs most."""
    return ", ".join(f"{'higher' if f.is_higher else 'lower'} {f.name}" for f in shift.features[:2])


def _consequence(predicted: RegretPrediction | None) -> str:
    """What a large distance means, if the synthetic tasks show it."""
    if predicted is not None and predicted.moved.is_shown and predicted.moved.correlation > 0:
        return ", and among tasks that were moved away, farther ones had more regret"
    return "; the synthetic tasks do not show that this costs anything"


def _points(found: Estimate) -> str:
    """A difference in points with its interval."""
    spread = "" if found.half_width is None else f" ± {found.half_width:.1f}"
    return f"{found.mean:.1f}{spread} points"


__all__ = ["advise", "bounds"]
