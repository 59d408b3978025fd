"""Small models to push to the loopback Hub, and their outputs."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, pipeline

from transformers_tart import (
    TartClassificationPipeline,
    TartForSequenceClassification,
    TartReasoner,
    TartReasonerConfig,
)


BASE, MODEL, TASK, REASONER = "org/base", "me/model", "me/task", "me/reasoner"
EXAMPLES = [{"text": f"w{i} w{2 * i + 9} w{i + 40}", "label": ("ham", "spam")[i % 2]} for i in range(12)]
TEXTS = ["w3 w4 w5", "w60", "w7 w8 w9 w10 w11"]
WEIGHTS = "model.safetensors"


def make_reasoner(layers: int = 2) -> TartReasoner:
    """Return a small random reasoner, whose weights are in no other place that loading could fall back on."""
    torch.manual_seed(layers)
    return TartReasoner(TartReasonerConfig(hidden_size=16, num_hidden_layers=layers, head_dim=4)).eval()


def compose(base: str | Path = BASE, **arguments: Any) -> TartForSequenceClassification:
    """Return a composition on the backbone on the Hub."""
    return TartForSequenceClassification.from_backbone(base, make_reasoner(), **arguments)


def fit(tokenizer: PreTrainedTokenizerFast, **arguments: Any) -> TartClassificationPipeline:
    """Return a task on the backbone on the Hub."""
    return pipeline("tart-classification", model=compose(**arguments), tokenizer=tokenizer, examples=EXAMPLES)


def compute_logits(model: TartForSequenceClassification, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Return the logits of the texts, by the stored support set or else a new one."""
    support = model.support or model.encode_support(EXAMPLES, tokenizer)
    with torch.no_grad():
        return model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), support=support).logits


def reason(reasoner: TartReasoner) -> torch.Tensor:
    """Return the logits of random embeddings."""
    support, query = torch.randn(1, 15, 8, generator=torch.Generator().manual_seed(2)).split([12, 3], dim=1)
    with torch.no_grad():
        return reasoner(support, torch.arange(12)[None] % 2, query).logits


__all__ = [
    "BASE",
    "EXAMPLES",
    "MODEL",
    "REASONER",
    "TASK",
    "TEXTS",
    "WEIGHTS",
    "compose",
    "compute_logits",
    "fit",
    "make_reasoner",
    "reason",
]
