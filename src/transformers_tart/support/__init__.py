"""Support sets: labeled embeddings and label hints, as they are stored and as a reasoner has read them."""

from transformers_tart.support.files import METADATA_KEY
from transformers_tart.support.prepared import PreparedSupport
from transformers_tart.support.support_set import SUPPORT_FILE, SupportSet, check_is_support


__all__ = ["METADATA_KEY", "SUPPORT_FILE", "PreparedSupport", "SupportSet", "check_is_support"]
