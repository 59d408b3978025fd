"""Inputs that are not text: images and recordings in every form a user may give them, in one form each."""

from transformers_tart.inputs.audio import Waveform, read_audio
from transformers_tart.inputs.images import Image, read_image


__all__ = ["Image", "Waveform", "read_audio", "read_image"]
