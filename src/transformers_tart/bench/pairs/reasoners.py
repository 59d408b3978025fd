"""`gpt2-reasoner`: the published head, a whole sequence for each query, and all queries on one prefix cache."""

import torch
from torch import Tensor

from transformers_tart.bench.pairs.base import Pair
from transformers_tart.bench.published import predict_one_by_one
from transformers_tart.bench.summaries import SUMMARIES
from transformers_tart.bench.timing import Comparison, Meter
from transformers_tart.bench.workload import Workload, draw_embeddings
from transformers_tart.reasoners.architectures.gpt2 import GPT2Architecture
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.presets import PRESETS


DIM = 768
SPREAD = 0.1  # of random weights; with the usual 0.02 every probability is one half, whatever is computed


def random_head(workload: Workload) -> TartReasoner:
    """The published head, of random weights that all matter.

    Raises:
        ValueError: When the support set does not fit into its sequence, or does not vary in all its dimensions.
    """
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


def compare_reasoners(workload: Workload, reasoner: TartReasoner, head: TartReasoner) -> Comparison:
    """The head query by query, and any reasoner; equal results are asked for where it is the head."""
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


def build(workload: Workload) -> Comparison:
    """The same head on both sides."""
    head = random_head(workload)
    return compare_reasoners(workload, head, head)


GPT2_REASONER = Pair(
    "gpt2-reasoner",
    SUMMARIES["gpt2-reasoner"],
    k=256,
    queries=1000,
    build=build,
)

__all__ = ["GPT2_REASONER", "compare_reasoners", "random_head"]
