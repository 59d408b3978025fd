"""Methods on the embeddings of the composed model: its reasoner, and probes."""

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.training.validation import Predictor


def tart(protocol: str | None = None, hints: str | None = "auto") -> Method:
    """Return the composed model as a method, with its own protocol or another, with label hints or without."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support, protocol, hints)
        prepared = embedded.model.prepare_embedded(embedded.support, embedded.reading)
        with torch.inference_mode():
            return embedded.model.answer(embedded.queries, prepared).double().softmax(-1).cpu()

    return predict


def zero_shot(context: TaskContext, support: Support) -> Tensor:
    """Return the probabilities of the composed model by the names of the classes alone."""
    return tart()(context, Support((), support.seed))


def probe(baseline: Predictor) -> Method:
    """Return a classifier on the embeddings that the composed model reads as a method."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support)
        known, queries = embedded.features()
        return baseline(known, embedded.support.labels, queries, context.task.num_classes)

    return predict
