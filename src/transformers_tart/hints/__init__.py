"""Label hints: scores of an input for each class that come from the names of the classes, without examples."""

from transformers_tart.hints.base import HINTS, LabelHints
from transformers_tart.hints.label_texts import readable


__all__ = ["HINTS", "LabelHints", "readable"]
