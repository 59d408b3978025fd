"""Backbones: references to them, the modules that read them, and the language model inside this package."""

from transformers_tart.backbones.reference import MINI


__all__ = ["MINI"]
