"""Support sets: labeled embeddings with the label hints of their classes, as stored and as a reasoner has read them."""

from transformers_tart.support.files import METADATA_KEY
from transformers_tart.support.support_set import (
    SUPPORT_FILE,
    PreparedSupport,
    SupportSet,
    check_is_support,
    join_given,
)


__all__ = ["METADATA_KEY", "SUPPORT_FILE", "PreparedSupport", "SupportSet", "check_is_support", "join_given"]
