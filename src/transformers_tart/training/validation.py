"""Validation on fixed synthetic tasks, beside reference classifiers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import mean

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from transformers_tart.checks.progress import show_progress
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.sources import TrainingBatch


# support embeddings (k, dim), labels (k,), query embeddings (n, dim), number of classes -> probabilities (n, classes)
Predictor = Callable[[Tensor, Tensor, Tensor, int], Tensor]

VALIDATION_SEED = 2**31 - 1  # unlikely to be the seed of a training run
SMALLEST = 1e-12  # keeps the log loss of a wrong certain prediction finite


@dataclass(frozen=True)
class Score:
    """Log loss in nats and accuracy, means over tasks."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Validation:
    """Fixed tasks, and the classifiers that a reasoner is compared with on them."""

    batches: tuple[TrainingBatch, ...]  # with a support set, and each of another shape; see `TaskSource.validation`
    references: Mapping[str, Predictor] = field(default_factory=dict)  # by name

    def __post_init__(self) -> None:
        if not self.batches or any(batch.support_size is None for batch in self.batches):
            raise ValueError("Validation needs batches of tasks with a support set; take TaskSource.validation(...).")
        names = [_name(batch) for batch in self.batches]
        if len(set(names)) < len(names):
            raise ValueError(f"Each batch of a validation must be of another shape; got {names}.")

    @cached_property
    def reference_scores(self) -> dict[str, dict[str, Score]]:
        """Scores of the references, by name and then by shape."""
        return {
            name: self._each(partial(_predict_one_by_one, predict=reference))
            for name, reference in self.references.items()
        }

    def measure(self, reasoner: TartReasoner) -> dict[str, Score]:
        """Return the scores of a reasoner by shape, such as `k=64, 2 classes`."""
        was_training = reasoner.training
        reasoner.eval()
        with torch.no_grad():
            scores = self._each(partial(_reason, reasoner=reasoner))
        reasoner.train(was_training)
        return scores

    def _each(self, predict: Callable[[TrainingBatch], Tensor]) -> dict[str, Score]:
        """Score log-probabilities (tasks, n, classes) of the queries of each batch."""
        scores = {}
        for batch in show_progress(self.batches, "validating"):
            labels, log_probabilities = batch.labels[:, batch.support_size :], predict(batch)
            loss = cross_entropy(log_probabilities.transpose(1, 2), labels).item()
            accuracy = (log_probabilities.argmax(-1) == labels).double().mean().item()
            scores[_name(batch)] = Score(round(loss, 4), round(accuracy, 4))
        return scores


def overall(scores: Mapping[str, Score]) -> Score:
    """Return the mean over the shapes."""
    return Score(mean(s.loss for s in scores.values()), mean(s.accuracy for s in scores.values()))


def _name(batch: TrainingBatch) -> str:
    views, hints = len(batch.views), 0 if batch.hints is None else batch.hints.shape[2]
    extra = "" if (views, hints) == (1, 0) else f", {views} views, {hints} hints"
    return f"k={batch.support_size}, {batch.num_classes} classes{extra}"


def predict(reasoner: TartReasoner, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return logits (tasks, n, classes) and labels (tasks, n) of the queries."""
    support, query = slice(None, batch.support_size), slice(batch.support_size, None)
    logits = reasoner(
        [view[:, support] for view in batch.views],
        batch.labels[:, support],
        [view[:, query] for view in batch.views],
        num_labels=batch.num_classes,
        support_hints=None if batch.hints is None else batch.hints[:, support],
        query_hints=None if batch.hints is None else batch.hints[:, query],
        unlabeled_hints=batch.unlabeled_hints,
    ).logits
    return logits, batch.labels[:, query]


def _reason(batch: TrainingBatch, reasoner: TartReasoner) -> Tensor:
    batch, size = batch.to(reasoner.device), batch.support_size
    if len(batch.views) > 1 or batch.hints is not None:
        logits, _ = predict(reasoner, batch)
    else:  # without projection, as tasks are made for an architecture
        state = reasoner.architecture.prepare(batch.embeddings[:, :size], batch.labels[:, :size], batch.num_classes)
        logits = reasoner.architecture.query(state, batch.embeddings[:, size:])
    return logits.cpu().double().log_softmax(-1)


def _predict_one_by_one(batch: TrainingBatch, predict: Predictor) -> Tensor:
    size = batch.support_size
    if not size:  # nothing to learn from
        shape = (*batch.labels.shape, batch.num_classes)
        return torch.full(shape, -math.log(batch.num_classes), dtype=torch.float64)
    tasks = zip(batch.embeddings, batch.labels, strict=True)
    found = [predict(x[:size], y[:size], x[size:], batch.num_classes) for x, y in tasks]
    return torch.stack(found).clamp_min(SMALLEST).log()
