"""Reasoner architectures by their name in `TartReasonerConfig.architecture`."""

from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.architectures.gpt2 import GPT2Architecture
from transformers_tart.reasoners.architectures.kernel import KernelArchitecture


ARCHITECTURES: dict[str, type[Architecture]] = {"gpt2": GPT2Architecture, "kernel": KernelArchitecture}

__all__ = ["ARCHITECTURES"]
