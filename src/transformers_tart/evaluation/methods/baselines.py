"""Probes: scikit-learn's classifiers on frozen embeddings.

Each is a function (support (k, dim), labels (k,), query (n, dim), num_classes) -> probabilities (n, num_classes)
float64 on the CPU. A class without an example has probability 0. scikit-learn is imported on use, since that takes a
second.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.training.validation import Predictor


FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the cross-validated logistic regression


def _fit_predict(estimator: Any, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the predictions have settled before the weights
        estimator.fit(support.double().cpu().numpy(), labels.cpu().numpy())
    result = torch.zeros(len(query), num_classes, dtype=torch.float64)
    probabilities = estimator.predict_proba(query.double().cpu().numpy())
    result[:, torch.from_numpy(estimator.classes_)] = torch.from_numpy(probabilities).double()
    return result


def _is_one_each(labels: Tensor) -> bool:
    return len(labels) == len(labels.unique())


def probe(baseline: Predictor) -> Method:
    """Return a classifier on the embeddings that the composed model reads as a method."""

    def predict(context: TaskContext, support: Support) -> Tensor:
        embedded = context.embed(support)
        known, queries = embedded.features()
        return baseline(known, embedded.support.labels, queries, context.task.num_classes)

    return predict


def logistic_regression(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Fit the linear probe: logistic regression with C=1 on the embeddings as they are."""
    from sklearn.linear_model import LogisticRegression

    return _fit_predict(LogisticRegression(max_iter=2000), support, labels, query, num_classes)


def logistic_regression_cv(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Fit logistic regression on standardized embeddings, with C chosen by cross-validated log loss.

    There are at most as many folds as examples in the smallest class; with a single one, C is 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    counts = labels.unique(return_counts=True)[1]
    folds = min(FOLDS, int(counts.min()))
    if folds >= 2:
        grid = {"logisticregression__C": STRENGTHS}
        splits = StratifiedKFold(folds, shuffle=True, random_state=0)
        probe = GridSearchCV(probe, grid, cv=splits, scoring="neg_log_loss")
    return _fit_predict(probe, support, labels, query, num_classes)


def linear_discriminant(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Fit linear discriminant analysis with Ledoit-Wolf shrinkage, or nearest neighbors on one example a class."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if _is_one_each(labels):
        return nearest_neighbors(support, labels, query, num_classes)
    return _fit_predict(LinearDiscriminantAnalysis("lsqr", shrinkage="auto"), support, labels, query, num_classes)


def nearest_centroid(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Fit normals about the class means with shared variances, or nearest neighbors on one example a class."""
    from sklearn.neighbors import NearestCentroid

    if _is_one_each(labels):
        return nearest_neighbors(support, labels, query, num_classes)
    return _fit_predict(NearestCentroid(priors="empirical"), support, labels, query, num_classes)


def nearest_neighbors(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Return the shares of the classes among the sqrt(k) nearest examples, weighted by distance."""
    from sklearn.neighbors import KNeighborsClassifier

    count = max(1, round(len(labels) ** 0.5))
    return _fit_predict(KNeighborsClassifier(count, weights="distance"), support, labels, query, num_classes)


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


BASELINES: dict[str, Predictor] = {
    "logistic_regression": logistic_regression,
    "logistic_regression_cv": logistic_regression_cv,
    "linear_discriminant": linear_discriminant,
    "nearest_centroid": nearest_centroid,
    "nearest_neighbours": nearest_neighbors,
    "kernel_ridge": kernel_ridge,
}

__all__ = ["BASELINES", "logistic_regression", "probe"]
