"""Validation on synthetic tasks that stay the same through a run, beside references that never train."""

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

VALIDATION_SEED = 2**31 - 1  # no seed of a training
SMALLEST = 1e-12  # a probability of zero for what came true would cost infinitely much


@dataclass(frozen=True)
class Score:
    """Log loss in nats and accuracy, means over tasks."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Validation:
    r"""
    Fixed tasks, and what they are held against.

    Args:
        batches (`tuple[TrainingBatch, ...]`):
            Tasks with a support set and queries, each batch of another shape; see `TaskSource.validation`.
        references (`dict[str, Predictor]`, *optional*):
            Classifiers by name, such as those of `transformers_tart.evaluation.methods.baselines`: called with support
            embeddings (k, dim), labels (k,), query embeddings (n, dim) and the number of classes, they return
            probabilities (n, classes).

    Raises:
        ValueError: When there is no batch, one has no support set, or two are of one shape.
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
        """Scores of the references, by name and then by shape; computed once."""
        return {
            name: self._each(partial(_predict_one_by_one, predict=reference))
            for name, reference in self.references.items()
        }

    def measure(self, reasoner: TartReasoner) -> dict[str, Score]:
        """Scores of a reasoner by shape, such as `k=64, 2 classes`; its projection is left out, as in training."""
        was_training = reasoner.training
        reasoner.eval()
        with torch.no_grad():
            scores = self._each(partial(_reason, reasoner=reasoner))
        reasoner.train(was_training)
        return scores

    def _each(self, predict: Callable[[TrainingBatch], Tensor]) -> dict[str, Score]:
        return {_name(batch): _score(predict(batch), batch) for batch in self.batches}


def overall(scores: Mapping[str, Score]) -> Score:
    """The mean over the shapes."""
    return Score(mean(s.loss for s in scores.values()), mean(s.accuracy for s in scores.values()))


def _name(batch: TrainingBatch) -> str:
    return f"k={batch.support_size}, {batch.num_classes} classes"


def _score(log_probabilities: Tensor, batch: TrainingBatch) -> Score:
    """From log-probabilities (tasks, n, classes) of the queries."""
    labels = batch.labels[:, batch.support_size :]
    loss = cross_entropy(log_probabilities.transpose(1, 2), labels).item()
    return Score(round(loss, 4), round((log_probabilities.argmax(-1) == labels).double().mean().item(), 4))


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
