"""Answers of the pipeline: their formats, labels that are scored on their own, and explanations."""
