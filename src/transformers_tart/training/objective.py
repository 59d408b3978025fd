"""The training loss of a reasoner."""

import math

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.sources import TrainingBatch


class Objective(nn.Module):
    """A reasoner whose forward pass returns losses, so that accelerate shares its gradients between processes."""

    def __init__(self, reasoner: TartReasoner):
        super().__init__()
        self.reasoner = reasoner

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return the mean loss (tasks,) and accuracy (tasks,) of each task.

        The unit of the loss is that of a blind guess, so that tasks of many classes weigh no more than binary ones.
        """
        if batch.support_size is None:
            return self._sequence_loss(batch)
        support, query = slice(None, batch.support_size), slice(batch.support_size, None)
        labels = batch.labels[:, query]
        logits = self.reasoner(
            batch.embeddings[:, support],
            batch.labels[:, support],
            batch.embeddings[:, query],
            num_labels=batch.num_classes,
        ).logits
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1) / math.log(batch.num_classes)
        return losses, (logits.argmax(-1) == labels).float().mean(1)

    def _sequence_loss(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of every example, given those before it (arXiv 2306.07536, section 4.1)."""
        log_odds = self.reasoner.architecture.sequence_logits(batch.embeddings, batch.labels)  # type: ignore[operator]
        losses = binary_cross_entropy_with_logits(log_odds, batch.labels.float(), reduction="none").mean(1)
        return losses / math.log(2), ((log_odds > 0) == batch.labels.bool()).float().mean(1)


__all__ = ["Objective"]
