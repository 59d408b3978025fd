"""What grows while a reasoner is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A number that grows in equal jumps: by `increment` after every `interval` steps, from `start` to `end`.

    The schedule of arXiv 2306.07536 for input dimensions and points.
    """

    start: int
    end: int
    increment: int
    interval: int

    def at(self, step: int) -> int:
        """Its value during a step, counted from 0."""
        return min(self.end, self.start + step // self.interval * self.increment)


__all__ = ["Ramp"]
