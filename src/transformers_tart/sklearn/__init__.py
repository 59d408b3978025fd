"""An estimator of scikit-learn, for its pipelines, cross-validation and searches; importing it imports scikit-learn."""

from transformers_tart.sklearn.estimator import TartClassifier


__all__ = ["TartClassifier"]
