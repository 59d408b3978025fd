"""A diagnosis as a page of markdown."""

from transformers_tart.evaluation.diagnosis.diagnosis import Diagnosis
from transformers_tart.evaluation.diagnosis.gaps import FINE_TUNING, PROBE, PROMPTING, TART, Gaps
from transformers_tart.evaluation.diagnosis.regret import RegretPrediction, Relation
from transformers_tart.evaluation.diagnosis.shift import FeatureShift
from transformers_tart.evaluation.report.tables import NOTHING, plain, table
from transformers_tart.evaluation.report.statistics import Estimate


TITLES = {
    FINE_TUNING: "fine-tuning",
    PROBE: "linear probe of the frozen representation",
    TART: "TART",
    PROMPTING: "in-context prompting",
}
LEFT_OUT = "It was left out."
WEAK, STRONG = 0.3, 0.6  # rank correlations below and above which they are called so


def format_diagnosis(found: Diagnosis) -> str:
    """All sections."""
    sections = [_heading(found), _advice(found), _gaps(found), _shift(found), _regret(found), _support(found)]
    return "\n\n".join(sections)


def _heading(found: Diagnosis) -> str:
    seeds = f"{len(found.seeds)} support sets" if len(found.seeds) > 1 else "one support set"
    return (
        f"# {plain(found.task)}: {plain(found.model)} with the reasoner {plain(found.reasoner)}\n\n"
        f"{found.num_classes} classes, {seeds} of k = {found.k}, {found.test_texts} test texts. Intervals (±, 95%) "
        "are of the draw of the support set; the test texts stay the same."
    )


def _advice(found: Diagnosis) -> str:
    return "## Advice\n\n" + "\n".join(f"- {sentence}" for sentence in found.advice)


def _gaps(found: Diagnosis) -> str:
    gaps = found.gaps
    names = [name for name in TITLES if name in gaps.accuracies]
    names += [name for name in gaps.accuracies if name not in TITLES]
    rows = [[TITLES.get(name, plain(name)), _number(gaps.accuracies[name])] for name in names]
    parts = [
        "## Representation or reasoning",
        table(["Method", "Accuracy, %"], rows),
        table(["Gap (arXiv 2306.07536, section 3.1)", "Points"], _gap_rows(gaps)),
        _closed(gaps),
    ]
    missing = {name: LEFT_OUT for name in (FINE_TUNING, PROMPTING) if name not in gaps.accuracies} | gaps.missing
    parts += [f"Not measured: {TITLES.get(name, plain(name))}. {plain(why)}" for name, why in missing.items()]
    return "\n\n".join(parts)


def _gap_rows(gaps: Gaps) -> list[list[str]]:
    return [
        ["performance: fine-tuning − prompting", _number(gaps.performance)],
        ["of it representation: fine-tuning − linear probe", _number(gaps.representation)],
        ["of it reasoning: linear probe − prompting", _number(gaps.reasoning)],
        ["left by TART: linear probe − TART", _number(gaps.remaining)],
    ]


def _closed(gaps: Gaps) -> str:
    same = "The probe reads all layers, as TART does."
    if gaps.closed is not None:
        return f"TART closes {_number(gaps.closed, 100, 0)}% of the reasoning gap. {same}"
    if gaps.reasoning is None:
        return f"Without prompting there is no reasoning gap to close. {same}"
    return f"No share of the reasoning gap is given, since its interval is not above 0. {same}"


def _shift(found: Diagnosis) -> str:
    shift, shape = found.shift, found.synthetic
    verdict = "outside" if shift.is_outside else "inside"
    rows = [
        ["sliced Wasserstein", _number(shift.distance, 1, 2), f"{shift.percentile:.0f}"],
        ["largest of all directions", _number(shift.largest, 1, 2), f"{shift.largest_percentile:.0f}"],
        *([f"{plain(f.name)}, {_way(f)}", f"{f.distance:.2f}", f"{f.percentile:.0f}"] for f in shift.features),
    ]
    return "\n\n".join(
        [
            "## Distance from what the reasoner was trained on",
            f"Compared: {shift.compared}, in standard deviations of the training distribution; {shift.tasks} new "
            f"synthetic tasks (k = {shape.k}, {shape.queries} queries, {shape.classes} classes) say how far tasks of "
            f"that distribution lie. This task is **{verdict}**: {shift.percentile:.0f}% of them are nearer. From 95% "
            "on a task is called outside, as one in twenty training tasks is.",
            table(["Distance", "This task", "Percentile"], rows),
        ]
    )


def _way(feature: FeatureShift) -> str:
    return "higher" if feature.is_higher else "lower"


def _regret(found: Diagnosis) -> str:
    predicted = found.predicted_regret
    lines = [
        "## What the distance predicts",
        "Regret is TART's log loss minus that of the better of logistic regression and kernel ridge; below 0, TART is "
        "the best of the three.",
    ]
    if predicted is None:
        lines.append("Nothing is predicted: the reasoner reads one class against the rest, the regret is of all.")
    else:
        lines.append(
            f"- Among new tasks of the training distribution: {_relation(predicted.inside)}\n"
            f"- Among tasks that were moved away from it: {_relation(predicted.moved)}"
        )
        lines.append(_band(predicted))
    measured = f"Measured on the test texts: {_number(found.regret, 1, 3, signed=True)}"
    return "\n\n".join([*lines, f"{measured}{_place(found.regret.mean, predicted)}."])


def _band(predicted: RegretPrediction) -> str:
    """The regret that is to be expected."""
    if predicted.low is None or predicted.middle is None or predicted.high is None:
        return "No synthetic task lies as far as this one; nothing is predicted."
    hint = " No relation to the distance is shown, so this is about the regret of any synthetic task."
    return (
        f"The {predicted.neighbors} synthetic tasks nearest in distance had a regret of {predicted.low:+.3f} to "
        f"{predicted.high:+.3f} (80% of them; median {predicted.middle:+.3f})."
        f"{'' if predicted.inside.is_shown or predicted.moved.is_shown else hint}"
    )


def _place(regret: float, predicted: RegretPrediction | None) -> str:
    """Where a regret lies beside what was predicted."""
    if predicted is None or predicted.low is None or predicted.high is None:
        return ""
    if regret < predicted.low:
        return ", less than predicted"
    return ", more than predicted" if regret > predicted.high else ", as predicted"


def _relation(relation: Relation) -> str:
    size = abs(relation.correlation)
    numbers = (
        f"rank correlation {relation.correlation:+.2f} ({relation.low:+.2f} to {relation.high:+.2f}, {relation.tasks} "
        "tasks)"
    )
    if not relation.is_shown:
        return f"{numbers}: no relation is shown."
    strength = "weak" if size < WEAK else "strong" if size >= STRONG else "moderate"
    way = "more" if relation.correlation > 0 else "less"
    return f"{numbers}: a {strength} relation, farther tasks had {way} regret."


def _support(found: Diagnosis) -> str:
    parts = ["## Examples and layers"]
    curve = found.curve
    rows = [[str(k), _number(accuracy)] for k, accuracy in curve.accuracies.items()]
    parts.append(table(["k", "TART, %"], rows))
    if curve.slope is not None:
        parts.append(f"For twice as many examples: {_number(curve.slope, signed=True)} points.")
    held_out, layers = found.held_out, found.layers
    if held_out is not None:
        parts.append(
            f"Held-out examples of the support sets (one of each class at a time; {held_out.examples} in all): "
            f"{100 * held_out.accuracy:.1f}% right ({100 * held_out.low:.1f} to {100 * held_out.high:.1f}; chance "
            f"{100 * held_out.chance:.1f}), confidence minus accuracy {_number(held_out.excess, 100, signed=True)} "
            "points."
        )
    if layers is not None:
        cells = [[f"layer {s.layer}", f"{100 * s.accuracy:.1f}", f"{s.p_value:.2g}"] for s in layers.single]
        cells.append(["all layers", f"{100 * layers.all_layers:.1f}", NOTHING])
        parts.append(table(["Read", "Held-out, %", "p"], cells))
        parts.append(f"p: sign test against all layers, times the {len(layers.single)} tried. No test label is used.")
    return "\n\n".join(parts)


def _number(found: Estimate | None, factor: float = 1.0, digits: int = 1, signed: bool = False) -> str:
    """A mean with its interval, as far as they are known."""
    if found is None:
        return NOTHING
    spread = "" if found.half_width is None else f" ± {factor * found.half_width:.{digits}f}"
    return f"{factor * found.mean:{'+' if signed else ''}.{digits}f}{spread}"


__all__ = ["format_diagnosis"]
