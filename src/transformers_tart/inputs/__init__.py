"""Parsing and reading of inputs: examples, tables, texts, images and audio."""

from transformers_tart.inputs.audio import Waveform, read_audio
from transformers_tart.inputs.images import Image, read_image


__all__ = ["Image", "Waveform", "read_audio", "read_image"]
