"""`vanilla`, `loo`, `stream-protocol`: the published protocols one prompt at a time, and ours."""

from typing import Any

import torch
from torch import Tensor

from transformers_tart.backbones.forward import backbone_max_length
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.bench.inputs import draw_texts
from transformers_tart.bench.published import SampledProcedure
from transformers_tart.bench.timing import Comparison, Meter
from transformers_tart.bench.workload import POSITIONS, LanguageModel, Workload, load_language_model
from transformers_tart.embeddings import embed
from transformers_tart.embeddings.reference import LABEL_WORDS


MIN_WORDS, MAX_WORDS = 3, 30


def compare_protocols(workload: Workload, protocol: str) -> Comparison:
    """Embed the same support set and queries on both sides; ours computes no vocabulary head."""
    model = load_language_model(workload)
    drawn = workload.cut(draw_texts(workload.k + workload.queries, workload.seed, MIN_WORDS, MAX_WORDS))
    texts, queries, labels = drawn[: workload.k], drawn[workload.k :], workload.labels
    if protocol != "stream":
        _check_room(model, texts, queries)
    support_passes = 1 if protocol == "vanilla" else len(texts)
    groups = [(total, workload.sample(total)) for total in (support_passes, len(queries))]
    embedded = range(len(texts)) if protocol == "vanilla" else groups[0][1]

    def naive(meter: Meter) -> Tensor:
        procedure = SampledProcedure(
            model.with_head, model.tokenizer, workload.seed, workload.max_characters, groups, meter
        )
        support, query, _ = procedure.embed(protocol, texts, labels, queries)
        return torch.cat([support, query])[rows]

    traits = BackboneTraits(model.backbone)  # kept from one run to the next, as a pipeline keeps them

    def ours() -> Tensor:
        options: dict[str, Any] = {"protocol": protocol, "layers": -1, "label_names": LABEL_WORDS, "max_length": None}
        options |= {"seed": workload.seed, "traits": traits}
        given = texts, labels, queries
        support, query, _ = embed(model.backbone, model.tokenizer, *given, **options)
        return torch.cat([support, query])

    rows = [*embedded, *(len(texts) + i for i in groups[1][1])]
    return Comparison(
        naive=naive,
        ours=ours,
        rows=rows,
        size=len(drawn),
        computed=sum(len(made) for _, made in groups),
        total=sum(total for total, _ in groups),
        model=workload.model,
        dtype=model.backbone.dtype,
        device=workload.device,
        # the span of an example ends at its label in our prompts, and before the line of the label in the published
        agrees=protocol == "stream",
    )


def _check_room(model: LanguageModel, texts: list[str], queries: list[str]) -> None:
    """Check that the longest prompt is not truncated."""
    blocks = [f"Sentence: {text}\nLabel: {LABEL_WORDS[0]}\n" for text in texts]
    length = len(model.tokenizer("".join([*blocks, f"Sentence: {max(queries, key=len)}\nLabel:"]))["input_ids"])
    room = min(POSITIONS, backbone_max_length(model.with_head) or POSITIONS)
    if length > room:
        raise ValueError(
            f"The prompt of {len(texts)} examples has {length} tokens, and {room} are read: use a smaller k, fewer "
            "characters or a backbone with more positions."
        )


__all__ = ["compare_protocols"]
