"""Diagnosis of TART on a task: limited by the representation, its use, the data, or the reasoner's training."""

from transformers_tart.evaluation.diagnosis.diagnosis import Diagnosis, advise, as_json, diagnose, format_diagnosis


__all__ = ["Diagnosis", "advise", "as_json", "diagnose", "format_diagnosis"]
