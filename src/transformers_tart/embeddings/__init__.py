"""Protocols: how texts, images and audio become embeddings."""

from transformers_tart.backbones.forward import input_device, text_encoder
from transformers_tart.embeddings.pooling import pooled_hidden_states
from transformers_tart.embeddings.protocols import embed, embed_media, encode_texts


__all__ = ["embed", "embed_media", "encode_texts", "input_device", "pooled_hidden_states", "text_encoder"]
