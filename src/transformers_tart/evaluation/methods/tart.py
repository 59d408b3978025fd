"""TART: a reasoner on the embeddings of any protocol."""

import torch
from torch import Tensor

from transformers_tart.embeddings import embed
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext


def tart(protocol: str) -> Method:
    """The reasoner on embeddings of a protocol; those of `stream` are shared with other methods."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        labels = context.labels(support)
        if protocol == "stream":
            known, query = context.embeddings(support)
        else:
            known, query, labels = embed(
                context.models.backbone,
                context.models.tokenizer,
                context.texts(support),
                labels.tolist(),
                context.test_texts,
                protocol=protocol,
                layers="all",
                label_names=context.task.label_names,
                max_length=context.models.max_length,
                batch_size=context.models.batch_size,
                seed=support.seed,
            )
        reasoner = context.models.reasoner
        given = [tensor[None].to(reasoner.device) for tensor in (known, labels, query)]
        with torch.inference_mode():
            logits = reasoner(*given, num_labels=context.task.num_classes).logits[0]
        return logits.double().softmax(-1).cpu()

    return predict


__all__ = ["tart"]
