"""Says what limits TART on a task: the representation, what is made of it, the data, or the reasoner's training."""

from transformers_tart.evaluation.diagnosis.diagnosis import Diagnosis, diagnose
from transformers_tart.evaluation.diagnosis.page import format_diagnosis


__all__ = ["Diagnosis", "diagnose", "format_diagnosis"]
