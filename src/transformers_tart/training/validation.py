"""Validation on fixed synthetic tasks, beside reference classifiers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from statistics import mean

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.sources import TrainingBatch


Predictor = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # support, labels, queries, classes -> probabilities

VALIDATION_SEED = 2**31 - 1  # unlikely to be the seed of a training run
SMALLEST = 1e-12  # keeps the log loss of a wrong certain prediction finite


@dataclass(frozen=True)
class Score:
    """Log loss in nats and accuracy, means over tasks."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Validation:
    r"""
    Fixed tasks, and the classifiers that a reasoner is compared with on them.

    Args:
        batches (`tuple[TrainingBatch, ...]`):
            Tasks with a support set and queries, each batch of a shape of its own; see `TaskSource.validation`.
        references (`dict[str, Predictor]`, *optional*):
            Classifiers by name, such as those of `transformers_tart.evaluation.methods.baselines`: functions of
            support embeddings (k, dim), labels (k,), query embeddings (n, dim) and the number of classes that return
            probabilities (n, classes).

    Raises:
        ValueError: When there is no batch, a batch has no support set, or two batches are of one shape.
    """

    batches: tuple[TrainingBatch, ...]
    references: Mapping[str, Predictor] = field(default_factory=dict)

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
        """Return the scores of a reasoner by shape, such as `k=64, 2 classes`, without projection, as in training."""
        was_training = reasoner.training
        reasoner.eval()
        with torch.no_grad():
            scores = self._each(partial(_reason, reasoner=reasoner))
        reasoner.train(was_training)
        return scores

    def _each(self, predict: Callable[[TrainingBatch], Tensor]) -> dict[str, Score]:
        """Score log-probabilities (tasks, n, classes) of the queries of each batch."""
        scores = {}
        for batch in self.batches:
            labels, log_probabilities = batch.labels[:, batch.support_size :], predict(batch)
            loss = cross_entropy(log_probabilities.transpose(1, 2), labels).item()
            accuracy = (log_probabilities.argmax(-1) == labels).double().mean().item()
            scores[_name(batch)] = Score(round(loss, 4), round(accuracy, 4))
        return scores


def overall(scores: Mapping[str, Score]) -> Score:
    """Return the mean over the shapes."""
    return Score(mean(s.loss for s in scores.values()), mean(s.accuracy for s in scores.values()))


def _name(batch: TrainingBatch) -> str:
    return f"k={batch.support_size}, {batch.num_classes} classes"


def _reason(batch: TrainingBatch, reasoner: TartReasoner) -> Tensor:
    size, device = batch.support_size, reasoner.device
    embeddings, labels = batch.embeddings.to(device), batch.labels.to(device)
    state = reasoner.architecture.prepare(embeddings[:, :size], labels[:, :size], batch.num_classes)
    return reasoner.architecture.query(state, embeddings[:, size:]).cpu().double().log_softmax(-1)


def _predict_one_by_one(batch: TrainingBatch, predict: Predictor) -> Tensor:
    size = batch.support_size
    tasks = zip(batch.embeddings, batch.labels, strict=True)
    found = [predict(x[:size], y[:size], x[size:], batch.num_classes) for x, y in tasks]
    return torch.stack(found).clamp_min(SMALLEST).log()


__all__ = ["VALIDATION_SEED", "Predictor", "Score", "Validation", "overall"]
