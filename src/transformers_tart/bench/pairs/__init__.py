"""Pairs of a naive way and ours, by name: a new pair is a new file and one line here."""

from transformers_tart.bench.pairs.base import Pair
from transformers_tart.bench.pairs.kernel_reasoner import KERNEL_REASONER
from transformers_tart.bench.pairs.protocols import LOO, STREAM_PROTOCOL, VANILLA
from transformers_tart.bench.pairs.reasoners import GPT2_REASONER
from transformers_tart.bench.pairs.stream import STREAM


PAIRS: dict[str, Pair] = {
    pair.name: pair for pair in (GPT2_REASONER, KERNEL_REASONER, VANILLA, LOO, STREAM_PROTOCOL, STREAM)
}

__all__ = ["PAIRS", "Pair"]
