"""TART: the composed model itself."""

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.base import Method, Support, TaskContext


def tart(protocol: str | None = None) -> Method:
    """Return the composed model as a method, with its own protocol or another."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support, protocol)
        prepared = embedded.model.prepare_embedded(embedded.support, embedded.prefix)
        with torch.inference_mode():
            return embedded.model.answer(embedded.queries, prepared).double().softmax(-1).cpu()

    return predict


__all__ = ["tart"]
