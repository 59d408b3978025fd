"""The diagnosis of a backbone, a reasoner and a task, its page of markdown, and the advice from its numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from transformers_tart.embeddings.views import split_views
from transformers_tart.evaluation.diagnosis import gaps, held_out
from transformers_tart.evaluation.diagnosis.features import QUERIES, Episode, Shape
from transformers_tart.evaluation.diagnosis.gaps import (
    FINE_TUNING,
    PROBE,
    PROMPTING,
    TART,
    Gaps,
    LearningCurve,
    Outcome,
)
from transformers_tart.evaluation.diagnosis.held_out import HeldOut, LayerScores
from transformers_tart.evaluation.diagnosis.shift import (
    RIVALS,
    RegretPrediction,
    Shift,
    measure_synthetic,
    seen_log_loss,
)
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.report.page import render_template
from transformers_tart.evaluation.report.statistics import Estimate, estimate
from transformers_tart.evaluation.report.tables import escape_markdown
from transformers_tart.projection import fit_projection


TITLES = {
    FINE_TUNING: "fine-tuning",
    PROBE: "linear probe of the frozen representation",
    TART: "TART",
    PROMPTING: "in-context prompting",
}
MIN_GAIN = 1.0  # points below which a gap is harmless, and twice the examples are not worth it


@dataclass(frozen=True)
class Diagnosis:
    """Measurements of TART on a task."""

    task: str
    model: str  # the backbone
    reasoner: str
    num_classes: int
    k: int  # examples of a support set
    seeds: tuple[int, ...]  # of the support sets
    test_texts: int
    gaps: Gaps
    shift: Shift
    synthetic: Shape
    predicted_regret: RegretPrediction | None  # `None` if the synthetic tasks have fewer classes than the task
    regret: Estimate  # in nats, on the test texts
    curve: LearningCurve
    held_out: HeldOut | None  # `None` if no class has a second example
    layers: LayerScores | None  # likewise


def diagnose(
    context: TaskContext,
    k: int,  # examples of a support set
    seeds: Sequence[int],  # of the support sets; a single one gives no intervals
    *,
    methods: Mapping[str, Method] | None = None,  # besides TART and the linear probe, or in place of these by name
    layers: Sequence[int] | None = None,  # hidden states to try alone in each view; by default all that are read
    num_tasks: int = 100,  # synthetic ones of each kind
    seed: int = 0,  # of these, and of the choice of queries that are compared with theirs
    progress: Callable[[str], None] = lambda step: None,  # called with the name of each step
) -> Diagnosis:
    """Measure what limits TART on a task: the representation, its use, the data, or the training of the reasoner
    (arXiv 2306.07536, section 3.1 and the section on generalization).
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"The seeds are {list(seeds)}; there must be at least one, each once.")
    task, models = context.task, context.models
    methods = {name: METHODS[name] for name in (TART, PROBE)} | dict(methods or {})
    supports = _draw_supports(context, k, seeds)
    count = held_out.count_hidden_states(context)
    places = held_out.list_places(context.model.config.embedding_options.views, count)
    chosen = held_out.choose_layers(layers, places, count)
    together = held_out.predict_supports(context, supports, progress)
    alone = {places[i]: held_out.predict_supports(context, supports, progress, i, places[i]) for i in chosen}
    outcomes, missing = gaps.measure_methods(context, supports, methods, progress)
    accuracies = {k: outcomes[TART].accuracies}
    for size in gaps.curve_sizes(k, task.num_classes)[:-1]:
        smaller = gaps.measure_methods(context, _draw_supports(context, size, seeds), {TART: methods[TART]}, progress)
        accuracies[size] = smaller[0][TART].accuracies
    reasoner, classes = context.model.reasoner, task.num_classes
    queries = min(QUERIES, len(task.test_texts))
    shape = Shape(min(k, reasoner.max_support), queries, min(classes, reasoner.max_classes or classes))
    synthetic = measure_synthetic(reasoner, shape, num_tasks, seed, lambda: progress("synthetic tasks"))
    shift = synthetic.compare([synthetic.measure(_as_episodes(context, s, shape, seed)) for s in supports])
    reads_all_classes = shape.classes == task.num_classes
    return Diagnosis(
        task=task.name,
        model=models.title,
        reasoner=Path(models.reasoner_name).name,
        num_classes=task.num_classes,
        k=k,
        seeds=tuple(seeds),
        test_texts=len(task.test_texts),
        gaps=gaps.decompose(outcomes, missing),
        shift=shift,
        synthetic=shape,
        predicted_regret=synthetic.predict_regret(shift.distance.mean) if reads_all_classes else None,
        regret=_measure_regret(context, supports, outcomes),
        curve=gaps.fit_curve(accuracies),
        held_out=held_out.summarize(list(together.values())),
        layers=held_out.score_layers(together, alone),
    )


def _draw_supports(context: TaskContext, k: int, seeds: Sequence[int]) -> list[Support]:
    return [Support(tuple(context.task.draw_support(k, seed)), seed) for seed in seeds]


def _as_episodes(context: TaskContext, support: Support, shape: Shape, seed: int) -> list[Episode]:
    """Return a support set and some test texts as the architecture reads them: each view alone, and one class against
    the rest where it reads no more than two.
    """
    rows, queries = context.layers(support)
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed))[: shape.queries]
    labels, config = context.labels(support)[: shape.k], context.model.reasoner.config
    views = context.model.config.embedding_options.views
    episodes = []
    for pair in zip(split_views(rows[: shape.k], views), split_views(queries[order], views), strict=True):
        known, new = (part.flatten(1)[None] for part in pair)
        projection = fit_projection(config.projection or "none", config.num_components, known)
        known, new = projection.transform(known)[0], projection.transform(new)[0]
        if shape.classes == context.task.num_classes:
            episodes.append(Episode(known, labels, new, shape.classes))
        else:
            episodes += [Episode(known, (labels == label).long(), new, 2) for label in labels.unique()]
    return episodes


def _measure_regret(context: TaskContext, supports: Sequence[Support], outcomes: Mapping[str, Outcome]) -> Estimate:
    """Compare TART's log loss with the lowest of the linear probe and the other rivals."""
    truth = torch.tensor(context.task.test_labels)
    regrets = []
    for i, support in enumerate(supports):
        labels = context.labels(support)
        rivals = [seen_log_loss(METHODS[name](context, support), truth, labels) for name in RIVALS if name != PROBE]
        regrets.append(outcomes[TART].log_losses[i] - min(outcomes[PROBE].log_losses[i], *rivals))
    return estimate(regrets)


def _sort_gaps(gaps: Gaps) -> dict[str, list[str]]:
    """Sort the parts of TART by their gaps: limiting if shown to be above 0, harmless if below a point."""
    lost = None if gaps.reasoning is None else -gaps.reasoning
    parts = (
        ("the representation (fine-tuning minus linear probe", gaps.representation, "; try another backbone"),
        ("the reasoner (linear probe minus TART", gaps.remaining, ""),
        ("what the embeddings lose (prompting minus linear probe", lost, "; prompt instead"),
    )
    found: dict[str, list[str]] = {"limiting": [], "harmless": [], "undecided": []}
    for name, gap, remedy in parts:
        if gap is not None:
            kind = "limiting" if gap.low > 0 else "harmless" if gap.high < MIN_GAIN else "undecided"
            found[kind].append(f"{name}: {gap.format()} points{remedy if kind == 'limiting' else ''})")
    return found


def _render(name: str, content: Mapping[str, Any]) -> str:
    return render_template(Path(__file__).with_name(name), content)


def advise(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return a paragraph on each question: what limits, whether to label more, which layers to read, what to trust."""
    predicted = diagnosis.predicted_regret
    content = {
        "diagnosis": diagnosis,
        "parts": _sort_gaps(diagnosis.gaps),
        "min_gain": MIN_GAIN,
        "costs_are_shown": predicted is not None and predicted.moved.is_shown and predicted.moved.correlation > 0,
    }
    paragraphs = _render("advice_template.md", content).split("\n\n")
    return tuple(" ".join(paragraph.split()) for paragraph in paragraphs)


def as_json(diagnosis: Diagnosis) -> str:
    """Format every number, and the advice."""
    return json.dumps({**asdict(diagnosis), "advice": advise(diagnosis)}, indent=1) + "\n"


def _compare_regret(diagnosis: Diagnosis) -> str:
    predicted = diagnosis.predicted_regret
    if predicted is None or predicted.low is None or predicted.high is None:
        return ""
    if diagnosis.regret.mean < predicted.low:
        return ", less than predicted"
    return ", more than predicted" if diagnosis.regret.mean > predicted.high else ", as predicted"


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """Format the whole page."""
    measured = diagnosis.gaps.accuracies
    names = [name for name in TITLES if name in measured] + [name for name in measured if name not in TITLES]
    missing = {name: "It was left out." for name in (FINE_TUNING, PROMPTING) if name not in measured}
    titles = {name: TITLES.get(name, escape_markdown(name)) for name in [*names, *missing, *diagnosis.gaps.missing]}
    content = {
        "diagnosis": diagnosis,
        "advice": advise(diagnosis),
        "accuracies": {titles[name]: measured[name] for name in names},
        "missing": {titles[name]: why for name, why in (missing | diagnosis.gaps.missing).items()},
        "regret_place": _compare_regret(diagnosis),
    }
    return _render("page_template.md", content)
