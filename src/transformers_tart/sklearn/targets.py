"""Labels of an estimator: their weights, a choice of examples, and priors of the classes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import is_multilabel
from sklearn.utils.validation import column_or_1d

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.inputs.containers import is_missing


def check_one_label(y: Any) -> np.ndarray:
    """Return the labels (n,) of examples with one label each.

    Raises:
        ValueError: When an example has several labels, or `y` another shape.
    """
    each = list(y) if isinstance(y, Iterable) else []
    if (missing := next((i for i, label in enumerate(each) if is_missing(label)), None)) is not None:
        raise ValueError(f"Input y contains NaN or None, the first at {missing}; leave these rows out, or label them.")
    if is_multilabel(y) or any(isinstance(label, list | tuple | set) and len(label) > 1 for label in each):
        raise ValueError(
            "y holds several labels of an example; TartClassifier takes one. For several, give a matrix of zeros and "
            "ones to OneVsRestClassifier(TartClassifier(...)) of scikit-learn, or lists of labels to the pipeline."
        )
    return column_or_1d(y, warn=True)


def weigh(
    classes: np.ndarray, labels: np.ndarray, class_weight: Any, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Return the weights (n,) of examples with labels (n,), `None` where all are 1."""
    if class_weight is None:
        return sample_weight
    factors = compute_class_weight(class_weight, classes=classes, y=classes[labels], sample_weight=sample_weight)
    weights = factors[labels] if sample_weight is None else factors[labels] * sample_weight
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"class_weight is {shorten(class_weight)}; weights must be finite and at least 0.")
    return weights


def choose(labels: np.ndarray, weights: np.ndarray | None, most: int | None, random_state: Any) -> np.ndarray:
    """Return the indices, in order, of the examples to read: of some weight, and at most so many, balanced by class.

    Raises:
        ValueError: When they are of one class.
    """
    kept = np.arange(len(labels)) if weights is None else np.flatnonzero(weights > 0)
    if most is not None and as_count(most, "max_examples", ", or None") < len(kept):
        kept = kept[check_random_state(random_state).permutation(len(kept))]
        kept = np.sort(kept[classes_in_turn(torch.from_numpy(labels[kept])).numpy()[:most]])
    if len(found := np.unique(labels[kept])) < 2:
        samples = "1 sample" if len(kept) == 1 else f"{len(kept)} samples"
        raise ValueError(
            f"There are {samples} to read, of {len(found)} class; a classifier needs examples of at least two classes."
        )
    return kept


def log_shares(labels: np.ndarray, weights: np.ndarray | None, num_labels: int) -> np.ndarray:
    """Return the logarithms (C,) of the shares of the classes, of which one without an example has half of one."""
    counts = np.bincount(labels, weights, minlength=num_labels).astype(np.float64)
    return np.log(np.where(counts > 0, counts, 0.5) / counts.sum())


def log_prior(class_prior: Any, classes: np.ndarray) -> np.ndarray:
    """Return the logarithms (C,) of the priors of the classes.

    Raises:
        ValueError: On anything but a probability for each class.
    """
    advice = f"give a probability for each class of {shorten(classes.tolist())}, in this order or as a dict"
    if isinstance(class_prior, Mapping):
        keys = classes.tolist()
        if set(class_prior) != set(keys):
            raise ValueError(f"class_prior has the classes {shorten(list(class_prior))}; {advice}.")
        class_prior = [class_prior[key] for key in keys]
    prior = np.asarray(class_prior, dtype=np.float64)
    is_valid = prior.shape == classes.shape and (prior >= 0).all() and abs(prior.sum() - 1) < 1e-6
    if not is_valid:
        raise ValueError(f"class_prior is {shorten(prior.tolist())}, whose sum must be 1; {advice}.")
    with np.errstate(divide="ignore"):
        return np.log(prior)
