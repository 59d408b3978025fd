"""`kernel-reasoner`: the published head for each query on its own, and the reasoner inside this package."""

from transformers_tart.bench.pairs.base import Pair
from transformers_tart.bench.pairs.reasoners import compare_reasoners, random_head
from transformers_tart.bench.summaries import SUMMARIES
from transformers_tart.bench.timing import Comparison
from transformers_tart.bench.workload import Workload
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import DEFAULT_REASONER


def build(workload: Workload) -> Comparison:
    """Another reasoner on each side: the same work, other predictions."""
    reasoner = TartReasoner.from_pretrained(DEFAULT_REASONER).to(workload.device).eval()
    return compare_reasoners(workload, reasoner, random_head(workload))


KERNEL_REASONER = Pair(
    "kernel-reasoner",
    SUMMARIES["kernel-reasoner"],
    k=256,
    queries=1000,
    build=build,
)

__all__ = ["KERNEL_REASONER"]
