"""Methods by name, and the composed model and probes as methods.

A new method is a function and a line in `METHODS`.
"""

import torch
from torch import Tensor

from transformers_tart.configuration_tart import PROTOCOLS
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.methods.fine_tuning import fine_tune
from transformers_tart.evaluation.methods.plain import majority, tfidf
from transformers_tart.evaluation.methods.prompting import calibrated_prompting, prompting
from transformers_tart.evaluation.methods.setfit import setfit
from transformers_tart.training.validation import Predictor


ZERO_SHOT = "zero_shot"


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


PROMPTING: dict[str, Method] = {"prompting": prompting, "prompting_calibrated": calibrated_prompting}
METHODS: dict[str, Method] = {
    "tart": tart(),
    "tart_without_hints": tart(hints=None),
    ZERO_SHOT: zero_shot,
    **{f"tart_{protocol}": tart(protocol) for protocol in PROTOCOLS if protocol != "stream"},
    **PROMPTING,
    **{name: probe(baseline) for name, baseline in BASELINES.items()},
    "fine_tune": fine_tune("full"),
    "fine_tune_head": fine_tune("head"),
    "fine_tune_last": fine_tune("last"),
    "lora": fine_tune("lora"),
    "setfit": setfit,
    "tfidf": tfidf,
    "majority": majority,
}
# Methods that answer without examples.
WITHOUT_EXAMPLES = ("tart", ZERO_SHOT, *PROMPTING)
