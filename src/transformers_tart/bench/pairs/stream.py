"""`stream`: texts of mixed length through the backbone one at a time, and in batches."""

import torch
from torch import Tensor

from transformers_tart.backbones.forward import resolve_max_length
from transformers_tart.bench.inputs import draw_texts
from transformers_tart.bench.timing import Comparison, Meter
from transformers_tart.bench.workload import Workload, load_language_model
from transformers_tart.embeddings import encode_texts


MIN_WORDS, MAX_WORDS = 1, 120


def compare_streams(workload: Workload) -> Comparison:
    """Embed the queries with the same backbone on both sides, without a vocabulary head."""
    model = load_language_model(workload)
    texts = draw_texts(workload.queries, workload.seed, MIN_WORDS, MAX_WORDS)
    chosen = workload.sample_by_length(texts)
    max_length = resolve_max_length(model.backbone, model.tokenizer)
    alone = model.with_head.base_model

    @torch.no_grad()
    def naive(meter: Meter) -> Tensor:
        embeddings = []
        with meter.sample(len(chosen), len(texts)):
            for i in chosen:
                batch = model.tokenizer(texts[i], truncation=True, max_length=max_length, return_tensors="pt")
                hidden = alone(input_ids=batch["input_ids"].to(workload.device)).last_hidden_state
                embeddings.append(hidden[0].float().mean(0).cpu())
        return torch.stack(embeddings)

    def ours() -> Tensor:
        return encode_texts(model.backbone, model.tokenizer, texts).squeeze(1).cpu()

    return Comparison(
        naive=naive,
        ours=ours,
        rows=chosen,
        size=len(texts),
        computed=len(chosen),
        total=len(texts),
        model=workload.model,
        dtype=model.backbone.dtype,
        device=workload.device,
    )


__all__ = ["compare_streams"]
