"""Protocols: how texts become embeddings."""

from transformers_tart.embeddings.pooling import input_device, pooled_hidden_states, text_encoder
from transformers_tart.embeddings.protocols import embed
from transformers_tart.embeddings.stream import encode_texts


__all__ = ["embed", "encode_texts", "input_device", "pooled_hidden_states", "text_encoder"]
