"""Classifiers of scikit-learn on frozen embeddings.

Each is a function (support (k, dim), labels (k,), query (n, dim), num_classes) -> probabilities (n, num_classes)
float64 on the CPU. A class without an example has probability 0. scikit-learn is imported on use, since that takes a
second.
"""

import warnings
from collections.abc import Callable
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


def _predictor(choose: Callable[[Tensor], Any]) -> Predictor:
    """Return a predictor by the estimator that is chosen for the labels of a support set."""

    def predict(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        from sklearn.exceptions import ConvergenceWarning

        estimator = choose(labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the predictions have settled before the weights
            estimator.fit(support.double().cpu().numpy(), labels.cpu().numpy())
        probabilities = estimator.predict_proba(query.double().cpu().numpy())
        return fill_classes(probabilities, estimator.classes_, num_classes)

    return predict


def _choose_logistic_regression(labels: Tensor) -> Any:
    """Return the linear probe: logistic regression with C=1 on the embeddings as they are."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000)


def _choose_logistic_regression_cv(labels: Tensor) -> Any:
    """Return logistic regression on standardized embeddings, with C chosen by cross-validated log loss.

    There are at most as many folds as examples in the smallest class; with a single one, C is 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    folds = min(FOLDS, int(labels.unique(return_counts=True)[1].min()))
    if folds < 2:
        return probe
    splits = StratifiedKFold(folds, shuffle=True, random_state=0)
    return GridSearchCV(probe, {"logisticregression__C": STRENGTHS}, cv=splits, scoring="neg_log_loss")


def _choose_linear_discriminant(labels: Tensor) -> Any:
    """Return linear discriminant analysis with Ledoit-Wolf shrinkage, or nearest neighbors on one example a class."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(labels) == len(labels.unique()):
        return _choose_nearest_neighbors(labels)
    return LinearDiscriminantAnalysis("lsqr", shrinkage="auto")


def _choose_nearest_centroid(labels: Tensor) -> Any:
    """Return normals about the class means with shared variances, or nearest neighbors on one example a class."""
    from sklearn.neighbors import NearestCentroid

    if len(labels) == len(labels.unique()):
        return _choose_nearest_neighbors(labels)
    return NearestCentroid(priors="empirical")


def _choose_nearest_neighbors(labels: Tensor) -> Any:
    """Return the sqrt(k) nearest examples, weighted by distance."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(max(1, round(len(labels) ** 0.5)), weights="distance")


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


logistic_regression = _predictor(_choose_logistic_regression)

BASELINES: dict[str, Predictor] = {
    "logistic_regression": logistic_regression,
    "logistic_regression_cv": _predictor(_choose_logistic_regression_cv),
    "linear_discriminant": _predictor(_choose_linear_discriminant),
    "nearest_centroid": _predictor(_choose_nearest_centroid),
    "nearest_neighbours": _predictor(_choose_nearest_neighbors),
    "kernel_ridge": kernel_ridge,
}
