"""`gpt2-reasoner`, `kernel-reasoner`: the published head with a sequence per query, and a reasoner for all queries."""

import torch
from torch import Tensor

from transformers_tart.bench.published import predict_one_by_one
from transformers_tart.bench.timing import Comparison, Meter
from transformers_tart.bench.workload import Workload, draw_embeddings
from transformers_tart.reasoners.architectures.gpt2 import GPT2Architecture
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import DEFAULT_REASONER
from transformers_tart.training.presets import PRESETS


DIM = 768
SPREAD = 0.1  # of random weights; with the usual 0.02 every probability is about one half


def _random_head(workload: Workload) -> TartReasoner:
    """Build the published head with random weights."""
    torch.manual_seed(workload.seed)
    reasoner = TartReasoner(PRESETS["paper-258"].build_config())
    if not reasoner.config.num_components < workload.k <= reasoner.max_support:
        raise ValueError(
            f"k is {workload.k}; the published procedure needs more than the {reasoner.config.num_components} "
            f"dimensions that it whitens, and its head reads at most {reasoner.max_support}."
        )
    with torch.no_grad():
        for parameter in reasoner.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, SPREAD)
    return reasoner.to(workload.device).eval()  # type: ignore[arg-type]


def _compare(workload: Workload, reasoner: TartReasoner, head: TartReasoner) -> Comparison:
    """Compare the head query by query with a reasoner; their results must agree if the reasoner is the head."""
    support, labels, queries = draw_embeddings(workload, DIM)
    chosen = workload.sample(len(queries))
    architecture = head.architecture
    if not isinstance(architecture, GPT2Architecture):
        raise TypeError(f"The head is {type(architecture).__name__}, not a GPT2Architecture.")

    def naive(meter: Meter) -> Tensor:
        return predict_one_by_one(architecture, support, labels, queries, chosen, meter)

    @torch.no_grad()
    def ours() -> Tensor:
        state = reasoner.prepare(support[None], labels[None])
        return reasoner.query(state, queries[None])[0].softmax(-1)[:, 1].cpu()

    return Comparison(
        naive=naive,
        ours=ours,
        rows=chosen,
        size=len(queries),
        computed=len(chosen),
        total=len(queries),
        model=f"{reasoner.config.architecture} reasoner",
        dtype=reasoner.dtype,
        device=workload.device,
        agrees=reasoner is head,
    )


def compare_heads(workload: Workload) -> Comparison:
    """Compare the published head query by query with the same head on one prefix cache."""
    head = _random_head(workload)
    return _compare(workload, head, head)


def compare_default_reasoner(workload: Workload) -> Comparison:
    """Compare the published head query by query with the reasoner inside this package."""
    reasoner = TartReasoner.from_pretrained(DEFAULT_REASONER).to(workload.device).eval()
    return _compare(workload, reasoner, _random_head(workload))


__all__ = ["compare_default_reasoner", "compare_heads"]
