"""Which layers to read, by held-out examples of the support set; no test label is looked at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from transformers_tart.evaluation.diagnosis.held_out import Answer, held_out_answers, join
from transformers_tart.evaluation.methods.base import Support, TaskContext


LEVEL = 0.05


@dataclass(frozen=True)
class LayerScore:
    """One layer alone beside all of them.

    Attributes:
        layer: index of the hidden state, 0 for the input embedding.
        accuracy: on held-out examples.
        p_value: of a difference as large, by an exact sign test, times the number of layers tried (Bonferroni).
    """

    layer: int
    accuracy: float
    p_value: float


@dataclass(frozen=True)
class LayerScores:
    """Accuracies on the same held-out examples: of all layers side by side, and of single ones."""

    examples: int
    all_layers: float
    single: tuple[LayerScore, ...]

    @property
    def best(self) -> LayerScore:
        """The single layer of the highest accuracy."""
        return max(self.single, key=lambda score: score.accuracy)

    @property
    def better(self) -> tuple[LayerScore, ...]:
        """Single layers that are shown to be better than all together."""
        return tuple(s for s in self.single if s.accuracy > self.all_layers and s.p_value < LEVEL)


def count_layers(context: TaskContext, support: Support) -> int:
    """Return how many hidden states the model reads, the input embedding among them."""
    return context.embed(support).support.embeddings.shape[1]


def choose_layers(asked: Sequence[int] | None, count: int) -> list[int]:
    """Indices from 0 of the layers that are tried alone; all when none are asked for.

    Raises:
        ValueError: On a layer that the backbone has not.
    """
    wrong = [layer for layer in asked or () if not -count <= layer < count]
    if wrong:
        raise ValueError(f"The backbone has the hidden states 0 to {count - 1}, or -{count} to -1; it has no {wrong}.")
    return sorted({layer % count for layer in (range(count) if asked is None else asked)})


def answer_support(
    context: TaskContext, supports: Sequence[Support], progress: Callable[[str], None], layer: int | None, count: int
) -> dict[int, Answer]:
    """Answers to all held-out examples, by the index of the text: by one of `count` layers, or by all of them."""
    found = []
    for support in supports:
        progress(f"held-out examples, {'all layers' if layer is None else f'layer {layer}'}, seed {support.seed}")
        rows = context.embeddings(support)[0]
        rows = rows if layer is None else rows.unflatten(1, (count, -1))[:, layer]
        found.append({} if _is_constant(rows) else _answers(context, support, rows))
    return join(found, [support.indices for support in supports])


def _is_constant(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())


def _answers(context: TaskContext, support: Support, rows: Tensor) -> dict[int, Answer]:
    return held_out_answers(context.model.reasoner, rows, context.labels(support), context.task.num_classes)


def score_layers(together: Mapping[int, Answer], alone: Mapping[int, Mapping[int, Answer]]) -> LayerScores | None:
    r"""
    Compare single layers with all of them.

    Args:
        together (`dict[int, Answer]`):
            Answers by all layers.
        alone (`dict[int, dict[int, Answer]]`):
            Answers by each single layer; one that does not vary has none, and counts as always wrong.

    Returns:
        [`LayerScores`], or `None` when there are no held-out examples or layers.
    """
    if not together or not alone:
        return None
    count = len(together)
    scores = []
    for layer, answers in alone.items():
        right = {i: i in answers and answers[i].is_right for i in together}
        wins = sum(right[i] and not together[i].is_right for i in together)
        losses = sum(together[i].is_right and not right[i] for i in together)
        p_value = min(1.0, _sign_test(wins, losses) * len(alone))
        scores.append(LayerScore(layer, sum(right.values()) / count, p_value))
    return LayerScores(count, sum(answer.is_right for answer in together.values()) / count, tuple(scores))


def _sign_test(wins: int, losses: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


__all__ = ["LayerScore", "LayerScores", "answer_support", "choose_layers", "count_layers", "score_layers"]
