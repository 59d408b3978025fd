"""Classifiers of scikit-learn on frozen embeddings.

Each is a function (support (k, dim), labels (k,), query (n, dim), num_classes) -> probabilities (n, num_classes)
float64 on the CPU. A class without an example has probability 0. scikit-learn is imported on use, since that takes a
second.
"""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from transformers_tart.training.validation import Predictor


FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the cross-validated logistic regression


def fill_classes(probabilities: Any, classes: Any, num_classes: int) -> Tensor:
    """Return probabilities (n, num_classes) float64 from those of some classes, with 0 for the others."""
    result = torch.zeros(len(probabilities), num_classes, dtype=torch.float64)
    result[:, torch.as_tensor(classes)] = torch.as_tensor(probabilities, dtype=torch.float64)
    return result


def _predict(name: str, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning

    estimator = _choose(name, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the predictions have settled before the weights
        estimator.fit(support.double().cpu().numpy(), labels.cpu().numpy())
    probabilities = estimator.predict_proba(query.double().cpu().numpy())
    return fill_classes(probabilities, estimator.classes_, num_classes)


def _choose(name: str, labels: Tensor) -> Any:
    """Return the estimator of a name for the labels of a support set."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    smallest = int(labels.unique(return_counts=True)[1].min())
    tuned: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    if smallest > 1:  # at most as many folds as examples in the smallest class; with a single one, C is 1
        folds = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=0)
        tuned = GridSearchCV(tuned, {"logisticregression__C": STRENGTHS}, cv=folds, scoring="neg_log_loss")
    neighbors = KNeighborsClassifier(max(1, round(len(labels) ** 0.5)), weights="distance")
    has_one_each = len(labels) == len(labels.unique())
    return {
        "logistic_regression": LogisticRegression(max_iter=2000),  # the linear probe: C=1, embeddings as they are
        "logistic_regression_cv": tuned,
        "linear_discriminant": neighbors if has_one_each else LinearDiscriminantAnalysis("lsqr", shrinkage="auto"),
        "nearest_centroid": neighbors if has_one_each else NearestCentroid(priors="empirical"),
        "nearest_neighbours": neighbors,
    }[name]


def kernel_ridge(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Fit kernel ridge regression on one-hot labels, clipped to probabilities.

    The kernel is Gaussian, as wide as the median distance between two examples; the strength is 1.
    """
    from sklearn.kernel_ridge import KernelRidge

    width = torch.nn.functional.pdist(support.double()).square().median().clamp_min(1e-12)
    targets = torch.nn.functional.one_hot(labels, num_classes).double()
    mean = targets.mean(0)
    ridge = KernelRidge(alpha=1.0, kernel="rbf", gamma=1 / width.item())
    ridge.fit(support.double().cpu().numpy(), (targets - mean).cpu().numpy())
    scores = torch.from_numpy(ridge.predict(query.double().cpu().numpy())) + mean.cpu()
    scores = scores.clamp(1e-3, 1.0) * (mean.cpu() > 0)
    return scores / scores.sum(1, keepdim=True)


ESTIMATORS = (
    *("logistic_regression", "logistic_regression_cv", "linear_discriminant", "nearest_centroid"),
    "nearest_neighbours",
)
BASELINES: dict[str, Predictor] = {
    **{name: partial(_predict, name) for name in ESTIMATORS},
    "kernel_ridge": kernel_ridge,
}
logistic_regression = BASELINES["logistic_regression"]
