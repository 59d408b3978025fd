"""Predictions for held-out examples of the support set, of all views and of single layers; no test label is used.

Each round holds out one example of every class, in at most 64 rounds. Were a single example held out, its class would
be rarer among the others, and a reasoner that predicts the most frequent class would always be wrong.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transformers_tart.embeddings.views import split_views
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.report.statistics import Estimate, estimate
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


MAX_ROUNDS = 64
MAX_NUMBERS = 2**24  # in the embeddings of a batch
LEVEL = 0.05


@dataclass(frozen=True)
class Prediction:
    """A prediction for an example with a label."""

    is_right: bool
    confidence: float
    label: int


@dataclass(frozen=True)
class HeldOut:
    """Accuracy and confidence on held-out examples, as fractions."""

    examples: int
    accuracy: float
    low: float  # of the 95% interval of the accuracy (Wilson 1927)
    high: float
    chance: float  # share of the most frequent class
    p_value: float  # probability of an accuracy as high, if every prediction were right with the probability of chance
    confidence: float  # mean probability of the predictions
    excess: Estimate  # confidence minus accuracy

    @property
    def is_near_chance(self) -> bool:
        """`True` if the accuracy is not significantly above chance."""
        return self.p_value > LEVEL


LayerPlace = tuple[str, int]  # the name of a view, and the index of the hidden state


@dataclass(frozen=True)
class LayerScore:
    """A single layer of a view compared with all layers of all views."""

    view: str
    layer: int  # index of the hidden state, 0 for the input embedding
    accuracy: float  # on held-out examples
    p_value: float  # of an exact sign test, times the number of layers tried (Bonferroni)


@dataclass(frozen=True)
class LayerScores:
    """Accuracies of all layers together and of single ones, on the same held-out examples."""

    examples: int
    all_layers: float
    single: tuple[LayerScore, ...]

    @property
    def best(self) -> LayerScore:
        """The single layer of the highest accuracy."""
        return max(self.single, key=lambda score: score.accuracy)

    @property
    def better(self) -> tuple[LayerScore, ...]:
        """Single layers that are significantly better than all together."""
        return tuple(s for s in self.single if s.accuracy > self.all_layers and s.p_value < LEVEL)


def plan_rounds(labels: Tensor, max_rounds: int = MAX_ROUNDS) -> list[Tensor]:
    """Return the indices that each round holds out: never the only example of a class."""
    members = torch.nn.functional.one_hot(labels)
    counts, rank = members.sum(0), (members.cumsum(0) * members).sum(1) - 1
    rounds = min(int(counts.max()), max_rounds)
    chosen = [((rank % rounds == i) & (counts[labels] > 1)).nonzero()[:, 0] for i in range(rounds)]
    return [indices for indices in chosen if len(indices)]


def predict_held_out(
    reasoner: TartReasoner, support: Tensor | Sequence[Tensor], labels: Tensor, num_classes: int
) -> dict[int, Prediction]:
    """Predict examples (k, dim), or views of them, with labels (k,) from the others, by position, unless alone in
    their class.
    """
    views = [support] if isinstance(support, Tensor) else list(support)
    numbers = sum(view.numel() for view in views)
    by_size: dict[int, list[Tensor]] = {}
    for held_out in plan_rounds(labels):
        by_size.setdefault(len(held_out), []).append(held_out)
    found: dict[int, Prediction] = {}
    for rounds in by_size.values():
        for batch in torch.stack(rounds).split(max(1, MAX_NUMBERS // numbers)):
            found |= _predict_rounds(reasoner, views, labels, num_classes, batch)
    return dict(sorted(found.items()))


def _predict_rounds(
    reasoner: TartReasoner, views: Sequence[Tensor], labels: Tensor, num_classes: int, held_out: Tensor
) -> dict[int, Prediction]:
    """Predict the examples of rounds (rounds, size) that hold out the same number."""
    others = torch.ones(len(held_out), len(labels), dtype=torch.bool).scatter(1, held_out, False)
    others = others.nonzero()[:, 1].view(len(held_out), -1)
    with torch.inference_mode():
        known, queries = ([view[i].to(reasoner.device) for view in views] for i in (others, held_out))
        targets = labels[others].to(reasoner.device)
        logits = reasoner(known, targets, queries, num_labels=num_classes).logits
        probability, guess = logits.double().softmax(-1).max(-1)
    rows = (part.flatten().tolist() for part in (held_out, guess, probability))
    return {i: Prediction(y == int(labels[i]), share, int(labels[i])) for i, y, share in zip(*rows, strict=True)}


def summarize(predictions: Sequence[Prediction]) -> HeldOut | None:
    """Compute accuracy, chance and calibration; `None` without predictions."""
    from scipy.stats import binomtest

    if not predictions:
        return None
    count, right = len(predictions), sum(found.is_right for found in predictions)
    chance = max(Counter(found.label for found in predictions).values()) / count
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return HeldOut(
        examples=count,
        accuracy=right / count,
        low=float(interval.low),
        high=float(interval.high),
        chance=chance,
        p_value=float(binomtest(right, count, min(chance, 1 - 1e-9), alternative="greater").pvalue),
        confidence=sum(found.confidence for found in predictions) / count,
        excess=estimate([found.confidence - found.is_right for found in predictions]),
    )


def count_hidden_states(context: TaskContext) -> int:
    """Return the number of hidden states of the backbone, the input embedding included."""
    embedder, task = context.model.embedder(), context.task
    options = replace(embedder.options, views=(View("all", layers="all"),))
    if options.has_prompt:
        options = replace(options, protocol="stream")
    example = Examples(task.test_texts[:1], [0], ())
    processor = context.models.processor(task.modality)
    return replace(embedder, options=options).embed_examples(example, processor).embeddings.shape[1]


def list_places(views: Sequence[View], count: int) -> list[LayerPlace]:
    """Return the view and hidden state of each layer of an embedding, of `count` hidden states."""
    return [(str(view.name), layer) for view in views for layer in view.indices(count)]


def choose_layers(layers: Sequence[int] | None, places: Sequence[LayerPlace], count: int) -> list[int]:
    """Return the positions in an embedding of the layers to try alone, by default all; a backbone has `count`."""
    wrong = [layer for layer in layers or () if not -count <= layer < count]
    if wrong:
        raise ValueError(f"The backbone has the hidden states 0 to {count - 1}, or -{count} to -1; it has no {wrong}.")
    read = {layer for _, layer in places}
    chosen = read if layers is None else {layer % count for layer in layers}
    if unread := sorted(chosen - read):
        raise ValueError(
            f"The views read the hidden states {sorted(read)} and not {unread}; give some of these, or views of other "
            "layers."
        )
    return [i for i, (_, layer) in enumerate(places) if layer in chosen]


def predict_supports(
    context: TaskContext,
    supports: Sequence[Support],
    progress: Callable[[str], None],
    position: int | None = None,
    place: LayerPlace | None = None,
) -> dict[int, Prediction]:
    """Predict the held-out examples of all support sets from the layer at a position, or from all views.

    The predictions are by index of the text, the first of each; a constant layer or view makes none.
    """
    joined: dict[int, Prediction] = {}
    for support in supports:
        read = "all layers" if place is None else f"{place[0]} {place[1]}"
        progress(f"held-out examples, {read}, seed {support.seed}")
        rows = context.layers(support)[0]
        views = split_views(rows, context.model.config.embedding_options.views)
        views = tuple(view.flatten(1) for view in views) if position is None else (rows[:, position],)
        if all((view != view[:1]).any() for view in views):
            labels = context.labels(support)
            found = predict_held_out(context.model.reasoner, views, labels, context.task.num_classes)
            for i, prediction in found.items():
                joined.setdefault(support.indices[i], prediction)
    return joined


def score_layers(
    together: Mapping[int, Prediction], alone: Mapping[LayerPlace, Mapping[int, Prediction]]
) -> LayerScores | None:
    """Compare predictions from single layers, where a missing one is wrong, with all layers; `None` without any."""
    from scipy.stats import binomtest

    if not together or not alone:
        return None
    scores = []
    for place, predictions in alone.items():
        right = {i: i in predictions and predictions[i].is_right for i in together}
        wins = sum(right[i] and not together[i].is_right for i in together)
        losses = sum(together[i].is_right and not right[i] for i in together)
        p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        scores.append(LayerScore(*place, sum(right.values()) / len(together), min(1.0, p_value * len(alone))))
    return LayerScores(len(together), sum(p.is_right for p in together.values()) / len(together), tuple(scores))
