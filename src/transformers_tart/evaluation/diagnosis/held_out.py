"""What the support set alone says of the reasoner: its answers to examples that it was not shown.

In each round one example of every class is left out, at most 64 rounds. Were a single one left out, its class would
be the rarer one among the others, and a reasoner that knows nothing would be wrong about all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.evaluation.report.statistics import Estimate
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


MOST_ROUNDS = 64
NUMBERS = 2**24  # of the embeddings that are read at once


@dataclass(frozen=True)
class Answer:
    """To one example: whether it was right, the probability it gave its answer, and the example's class."""

    is_right: bool
    confidence: float
    label: int


@dataclass(frozen=True)
class HeldOut:
    """Accuracy and confidence on held-out examples, as fractions.

    Attributes:
        examples: how many, each counted once.
        accuracy: share of right answers.
        low: of the 95% interval of the accuracy (Wilson 1927).
        high: likewise.
        chance: accuracy of always naming the class that most of them have.
        p_value: of an accuracy as high, if every answer were right with the probability of chance.
        confidence: mean probability of the answers.
        excess: confidence minus accuracy, with its 95% interval.
    """

    examples: int
    accuracy: float
    low: float
    high: float
    chance: float
    p_value: float
    confidence: float
    excess: Estimate

    @property
    def is_near_chance(self) -> bool:
        """Whether the accuracy is not shown to be above chance."""
        return self.p_value > 0.05


def rounds_of(labels: Tensor, most: int = MOST_ROUNDS) -> list[Tensor]:
    """Indices that are left out in each round: never an example that is alone in its class, so all classes stay."""
    counts = torch.bincount(labels)
    rank = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        rank[members] = torch.arange(int(members.sum()))
    rounds = min(int(counts.max()), most)
    together = counts[labels] > 1
    return [chosen for i in range(rounds) if len(chosen := ((rank % rounds == i) & together).nonzero()[:, 0])]


def held_out_answers(reasoner: TartReasoner, support: Tensor, labels: Tensor, num_classes: int) -> dict[int, Answer]:
    r"""
    Answers to the examples of a support set, each given the others.

    Args:
        reasoner ([`TartReasoner`]):
            The reasoner.
        support (`torch.FloatTensor` of shape `(k, dim)`):
            The examples.
        labels (`torch.LongTensor` of shape `(k,)`):
            Their labels.
        num_classes (`int`):
            Number of classes.

    Returns:
        `dict[int, Answer]`: by the position of the example; without those that are alone in their class.
    """
    by_size: dict[int, list[Tensor]] = {}
    for left_out in rounds_of(labels):
        by_size.setdefault(len(left_out), []).append(left_out)
    answers: dict[int, Answer] = {}
    for same in by_size.values():
        size = max(1, NUMBERS // support.numel())
        for start in range(0, len(same), size):
            answers |= _answer(reasoner, support, labels, num_classes, torch.stack(same[start : start + size]))
    return dict(sorted(answers.items()))


def _answer(
    reasoner: TartReasoner, support: Tensor, labels: Tensor, num_classes: int, left_out: Tensor
) -> dict[int, Answer]:
    """Answers of rounds (rounds, size) that leave the same number out."""
    others = torch.ones(len(left_out), len(labels), dtype=torch.bool).scatter(1, left_out, False)
    others = others.nonzero()[:, 1].view(len(left_out), -1)
    with torch.inference_mode():
        given = (rows.to(reasoner.device) for rows in (support[others], labels[others], support[left_out]))
        logits = reasoner(*given, num_labels=num_classes).logits
        probability, guess = logits.double().softmax(-1).max(-1)
    rows = zip(left_out.flatten().tolist(), guess.flatten().tolist(), probability.flatten().tolist(), strict=True)
    return {i: Answer(label == int(labels[i]), share, int(labels[i])) for i, label, share in rows}


def join(answers: Sequence[Mapping[int, Answer]], indices: Sequence[Sequence[int]]) -> dict[int, Answer]:
    """Answers of several support sets by the index of the text; the first of each text counts."""
    joined: dict[int, Answer] = {}
    for found, own in zip(answers, indices, strict=True):
        for position, answer in found.items():
            joined.setdefault(own[position], answer)
    return joined


def summarize(answers: Sequence[Answer]) -> HeldOut | None:
    """Accuracy, chance and calibration; `None` without answers."""
    from scipy.stats import binomtest

    if not answers:
        return None
    count, right = len(answers), sum(answer.is_right for answer in answers)
    labels = [answer.label for answer in answers]
    chance = max(labels.count(label) for label in set(labels)) / count
    test = binomtest(right, count, min(chance, 1 - 1e-9), alternative="greater")
    interval = binomtest(right, count).proportion_ci(method="wilson")
    excess = torch.tensor([answer.confidence - answer.is_right for answer in answers], dtype=torch.float64)
    half_width = None if count < 2 else 1.96 * (excess.std() / count**0.5).item()
    return HeldOut(
        examples=count,
        accuracy=right / count,
        low=float(interval.low),
        high=float(interval.high),
        chance=chance,
        p_value=float(test.pvalue),
        confidence=sum(answer.confidence for answer in answers) / count,
        excess=Estimate(excess.mean().item(), half_width),
    )


__all__ = ["Answer", "HeldOut", "held_out_answers", "join", "rounds_of", "summarize"]
