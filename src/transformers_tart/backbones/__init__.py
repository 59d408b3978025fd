"""Backbones: references to them, the modules that read them, and the language model inside this package."""

from transformers_tart.loading.embedded import MINI


__all__ = ["MINI"]
