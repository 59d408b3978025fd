"""An estimator of scikit-learn, for its pipelines, cross-validation and searches."""

from transformers_tart.sklearn.estimator import TartClassifier


__all__ = ["TartClassifier"]
