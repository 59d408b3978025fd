"""What one would otherwise put on the same frozen embeddings."""

from torch import Tensor

from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.methods.baselines import Baseline


def probe(baseline: Baseline) -> Method:
    """A classifier on the embeddings that TART reads with `stream`."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        known, query = context.embeddings(support)
        return baseline(known, context.labels(support), query, context.task.num_classes)

    return predict


__all__ = ["probe"]
