"""What a pair is."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers_tart.bench.timing import Comparison
from transformers_tart.bench.workload import Workload


@dataclass(frozen=True)
class Pair:
    r"""
    A naive way and ours to the same work.

    Args:
        name (`str`):
            On the command line.
        summary (`str`):
            One line for its help.
        k (`int`, *optional*):
            Size of the support set where none is given; `None` for a work without one.
        queries (`int`):
            Number of queries where none is given.
        build (`Callable`):
            Loads and draws what both sides need.
    """

    name: str
    summary: str
    k: int | None
    queries: int
    build: Callable[[Workload], Comparison]


__all__ = ["Pair"]
