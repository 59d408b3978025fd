"""Methods on the embeddings of the composed model: its reasoner, and probes."""

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.training.validation import Predictor


def tart(protocol: str | None = None) -> Method:
    """Return the composed model as a method, with its own protocol or another."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support, protocol)
        prepared = embedded.model.prepare_embedded(embedded.support, embedded.reading)
        with torch.inference_mode():
            return embedded.model.answer(embedded.queries, prepared).double().softmax(-1).cpu()

    return predict


def probe(baseline: Predictor) -> Method:
    """Return a classifier on the embeddings that the composed model reads as a method."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support)
        known, queries = embedded.features()
        return baseline(known, embedded.support.labels, queries, context.task.num_classes)

    return predict
