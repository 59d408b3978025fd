"""The whole diagnosis of a backbone, a reasoner and a task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from transformers_tart.evaluation.diagnosis.advice import advise
from transformers_tart.evaluation.diagnosis.curve import LearningCurve, curve_sizes, fit_curve
from transformers_tart.evaluation.diagnosis.episodes import QUERIES, Episode, Shape
from transformers_tart.evaluation.diagnosis.gaps import (
    PROBE,
    TART,
    Gaps,
    Outcome,
    decompose,
    measure_methods,
)
from transformers_tart.evaluation.diagnosis.held_out import HeldOut, summarize
from transformers_tart.evaluation.diagnosis.layers import (
    LayerScores,
    answer_support,
    choose_layers,
    count_layers,
    score_layers,
)
from transformers_tart.evaluation.diagnosis.regret import RIVALS, RegretPrediction, seen_log_loss
from transformers_tart.evaluation.diagnosis.shift import Shift
from transformers_tart.evaluation.diagnosis.synthetic import SyntheticTasks, measure_synthetic
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.methods.baselines import BASELINES, probe
from transformers_tart.evaluation.methods.tart import tart
from transformers_tart.evaluation.report.statistics import Estimate, estimate
from transformers_tart.projection import fit_projection


NUM_TASKS = 100


@dataclass(frozen=True)
class Diagnosis:
    """What was measured, and the advice that follows from it.

    Attributes:
        task: name.
        model: of the backbone.
        reasoner: name.
        num_classes: of the task.
        k: examples of a support set.
        seeds: of the support sets.
        test_texts: how many were classified.
        gaps: representation and reasoning.
        shift: distance from what the reasoner was trained on.
        synthetic: sizes of the synthetic tasks.
        predicted_regret: by that distance; `None` where the synthetic tasks have fewer classes than the task.
        regret: measured on the test texts, in nats.
        curve: accuracy by k.
        held_out: on the support sets alone; `None` when no class has a second example.
        layers: single ones beside all; likewise.
        advice: sentences.
    """

    task: str
    model: str
    reasoner: str
    num_classes: int
    k: int
    seeds: tuple[int, ...]
    test_texts: int
    gaps: Gaps
    shift: Shift
    synthetic: Shape
    predicted_regret: RegretPrediction | None
    regret: Estimate
    curve: LearningCurve
    held_out: HeldOut | None
    layers: LayerScores | None
    advice: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def diagnose(
    context: TaskContext,
    k: int,
    seeds: Sequence[int],
    *,
    methods: Mapping[str, Method] | None = None,
    layers: Sequence[int] | None = None,
    num_tasks: int = NUM_TASKS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    r"""
    Find out what limits TART on a task: the representation, what is made of it, the data, or the training of the
    reasoner (arXiv 2306.07536, section 3.1 and the section on generalization).

    Args:
        context ([`TaskContext`]):
            The task, the backbone and the reasoner.
        k (`int`):
            Examples of a support set.
        seeds (`list[int]`):
            Of the support sets; with one alone there are no intervals.
        methods (`dict[str, Method]`, *optional*):
            `"prompting"` and `"fine_tune"`, each where it is to be measured, and others beside them; `"tart"` and
            `"logistic_regression"`, the linear probe, in place of those of this package.
        layers (`list[int]`, *optional*):
            Hidden states that are tried alone; all when not given.
        num_tasks (`int`, *optional*, defaults to 100):
            Synthetic tasks of each kind.
        seed (`int`, *optional*, defaults to 0):
            Of the synthetic tasks and of the choice of queries that are compared with theirs.
        progress (`Callable[[str], None]`, *optional*):
            Told each step.

    Returns:
        [`Diagnosis`]

    Raises:
        ValueError: On sizes that do not fit the task, layers that the backbone has not, or a reasoner without
        synthetic tasks.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"The seeds are {list(seeds)}; there must be at least one, each once.")
    tell = progress or _silent
    supports = _draw(context, k, seeds)
    given = {TART: tart(), PROBE: probe(BASELINES[PROBE]), **(methods or {})}
    held_out, scores = _examine(context, supports, layers, tell)
    found, missing = measure_methods(context, supports, given, tell)
    gaps, regret = decompose(found, missing), _regret(context, supports, found)
    curve = _learn(context, k, seeds, found[TART], given[TART], tell)
    tasks = _synthetic(context, k, num_tasks, seed, tell)
    shift = tasks.compare([tasks.measure(_episodes(context, s, tasks.shape, seed)) for s in supports])
    is_alike = tasks.shape.classes == context.task.num_classes
    predicted = tasks.predict_regret(shift.distance.mean) if is_alike else None
    return Diagnosis(
        task=context.task.name,
        model=context.models.title,
        reasoner=Path(context.models.reasoner_name).name,
        num_classes=context.task.num_classes,
        k=k,
        seeds=tuple(seeds),
        test_texts=len(context.task.test_texts),
        gaps=gaps,
        shift=shift,
        synthetic=tasks.shape,
        predicted_regret=predicted,
        regret=regret,
        curve=curve,
        held_out=held_out,
        layers=scores,
        advice=advise(gaps, shift, predicted, regret, curve, held_out, scores),
    )


def _silent(step: str) -> None:
    """Tell nobody."""


def _draw(context: TaskContext, k: int, seeds: Sequence[int]) -> list[Support]:
    return [Support(tuple(context.task.draw_support(k, seed)), seed) for seed in seeds]


def _examine(
    context: TaskContext, supports: Sequence[Support], layers: Sequence[int] | None, tell: Callable[[str], None]
) -> tuple[HeldOut | None, LayerScores | None]:
    """What the support sets alone say."""
    count = count_layers(context, supports[0])
    chosen = choose_layers(layers, count)
    together = answer_support(context, supports, tell, None, count)
    alone = {layer: answer_support(context, supports, tell, layer, count) for layer in chosen}
    return summarize(list(together.values())), score_layers(together, alone)


def _learn(
    context: TaskContext,
    k: int,
    seeds: Sequence[int],
    found: Outcome,
    method: Method,
    tell: Callable[[str], None],
) -> LearningCurve:
    """TART at smaller sizes, beside k, which is known already."""
    accuracies = {k: found.accuracies}
    for size in curve_sizes(k, context.task.num_classes):
        if size != k:
            smaller, _ = measure_methods(context, _draw(context, size, seeds), {TART: method}, tell)
            accuracies[size] = smaller[TART].accuracies
    return fit_curve(accuracies)


def _synthetic(context: TaskContext, k: int, count: int, seed: int, tell: Callable[[str], None]) -> SyntheticTasks:
    """Synthetic tasks of the sizes in which the reasoner reads the real one."""
    reasoner, classes = context.model.reasoner, context.task.num_classes
    queries = min(QUERIES, len(context.task.test_texts))
    shape = Shape(min(k, reasoner.max_support), queries, min(classes, reasoner.max_classes or classes))
    return measure_synthetic(reasoner, shape, count, seed, lambda: tell("synthetic tasks"))


def _episodes(context: TaskContext, support: Support, shape: Shape, seed: int) -> list[Episode]:
    """A support set and some of the test texts, without their labels, as the architecture reads them: each class
    against the rest where it reads no more than two."""
    rows, queries = (part[None] for part in context.embeddings(support))
    order = torch.randperm(queries.shape[1], generator=torch.Generator().manual_seed(seed))[: shape.queries]
    rows, queries = rows[:, : shape.k], queries[:, order]
    labels, config = context.labels(support)[: shape.k], context.model.reasoner.config
    projection = fit_projection(config.projection or "none", config.num_components, rows)
    rows, queries = projection.transform(rows)[0], projection.transform(queries)[0]
    if shape.classes == context.task.num_classes:
        return [Episode(rows, labels, queries, shape.classes)]
    return [Episode(rows, (labels == label).long(), queries, 2) for label in labels.unique()]


def _regret(context: TaskContext, supports: Sequence[Support], found: Mapping[str, Outcome]) -> Estimate:
    """Log loss of TART minus that of the better of the linear probe and the other classifiers of the synthetic
    tasks."""
    truth = torch.tensor(context.task.test_labels)
    regrets = []
    for i, support in enumerate(supports):
        rivals = [found[PROBE].log_losses[i]]
        rivals += [
            seen_log_loss(probe(BASELINES[name])(context, support), truth, context.labels(support))
            for name in RIVALS
            if name != PROBE
        ]
        regrets.append(found[TART].log_losses[i] - min(rivals))
    return estimate(regrets)


__all__ = ["NUM_TASKS", "Diagnosis", "diagnose"]
