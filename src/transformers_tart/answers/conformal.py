"""Label sets: the labels that cannot be excluded at a coverage (cross-conformal prediction).

A label is excluded where its probability is lower than that of the true label is in all but a share of the examples,
each predicted by a support set without it. Of inputs like the examples, the sets then hold the true label about as
often as asked, whatever the probabilities are worth (Vovk 2015, "Cross-conformal predictors").
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from transformers_tart.checks.progress import show_progress
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.support import PreparedSupport
from transformers_tart.support.growing import take_rows


FOLDS = 10


@torch.no_grad()
def predict_held_out(model: TartPreTrainedModel, prepared: PreparedSupport) -> Tensor:
    """Return the probabilities (n,) of the labels of examples, each predicted by the nine tenths without it.

    Examples whose class the others lack are left out. Copies are in one tenth, and neither the order of the examples
    nor that of the classes matters.
    """
    support, found = replace(prepared.support, packed=None, texts=None), []
    _, group = support.embeddings.flatten(1).unique(dim=0, return_inverse=True)
    for number in show_progress(range(FOLDS), "calibrating"):
        is_out = group % FOLDS == number
        if len(support.labels[~is_out].unique()) < 2:
            continue
        rest = take_rows(support, (~is_out).nonzero().flatten())
        rows = (is_out & torch.isin(support.labels, rest.labels)).nonzero().flatten()
        if len(rows):
            embeddings = support.embeddings[rows]
            embeddings = embeddings if embeddings.dim() == 3 else embeddings[:, None]
            given = None if support.given_hints is None else support.given_hints[rows]
            logits = model.answer(embeddings, model.prepare_embedded(rest, prepared.reading), given)
            found.append(logits.softmax(-1).cpu().gather(1, support.labels[rows].cpu()[:, None])[:, 0])
    return torch.cat(found) if found else torch.zeros(0)


def least_probability(of_labels: Tensor, coverage: float) -> float:
    """Return the probability below which a label is excluded, from those (k,) of the labels of held-out examples.

    Raises:
        ValueError: When the examples are too few for the coverage.
    """
    size = len(of_labels)
    rank = math.ceil((size + 1) * coverage)
    if rank > size:
        raise ValueError(
            f"coverage is {coverage}, and {size} examples that are not alone in their class allow at most "
            f"{size / (size + 1):.3f}; ask for less, or give at least {math.ceil(coverage / (1 - coverage))} of them."
        )
    return float(of_labels.sort(descending=True).values[rank - 1])


__all__ = ["least_probability", "predict_held_out"]
