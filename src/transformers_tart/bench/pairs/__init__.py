"""Registry of the pairs; a new pair is a function that builds a comparison, and an entry here."""

import functools

from transformers_tart.bench.pairs.protocols import compare_protocols
from transformers_tart.bench.pairs.reasoners import compare_default_reasoner, compare_heads
from transformers_tart.bench.pairs.stream import compare_streams
from transformers_tart.bench.summaries import SUMMARIES
from transformers_tart.bench.timing import Pair


PAIRS: dict[str, Pair] = {
    name: Pair(name, SUMMARIES[name], k, queries, build)
    for name, k, queries, build in (
        ("gpt2-reasoner", 256, 1000, compare_heads),
        ("kernel-reasoner", 256, 1000, compare_default_reasoner),
        ("vanilla", 48, 200, functools.partial(compare_protocols, protocol="vanilla")),
        ("loo", 48, 200, functools.partial(compare_protocols, protocol="loo")),
        ("stream-protocol", 48, 200, functools.partial(compare_protocols, protocol="stream")),
        ("stream", None, 500, compare_streams),
    )
}

__all__ = ["PAIRS", "Pair"]
