"""What one would otherwise put on frozen embeddings: scikit-learn's classifiers, each with probabilities.

Every baseline is a function (support (k, dim), labels (k,), query (n, dim), num_classes) -> probabilities
(n, num_classes) float64 on the CPU; a class without an example has probability 0. scikit-learn is imported where it is
used, since it takes a second.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


Baseline = Callable[[Tensor, Tensor, Tensor, int], Tensor]

FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the cross-validated logistic regression


def _fit_predict(estimator: Any, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weights that still drift predict the same
        estimator.fit(support.double().cpu().numpy(), labels.cpu().numpy())
    result = torch.zeros(len(query), num_classes, dtype=torch.float64)
    probabilities = estimator.predict_proba(query.double().cpu().numpy())
    result[:, torch.from_numpy(estimator.classes_)] = torch.from_numpy(probabilities).double()
    return result


def _is_one_each(labels: Tensor) -> bool:
    """Whether no class has a second example, so that nothing is known of the spread inside a class."""
    return len(labels) == len(labels.unique())


def logistic_regression(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """The linear probe: logistic regression with C=1 on the embeddings as they are."""
    from sklearn.linear_model import LogisticRegression

    return _fit_predict(LogisticRegression(max_iter=2000), support, labels, query, num_classes)


def logistic_regression_cv(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Logistic regression on standardized embeddings, C by cross-validated log loss.

    With fewer examples of a class than folds, there are fewer folds; with a single one of some class, C is 1.
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
    """Linear discriminant analysis with Ledoit-Wolf shrinkage; of one example a class, the nearest."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if _is_one_each(labels):
        return nearest_neighbors(support, labels, query, num_classes)
    return _fit_predict(LinearDiscriminantAnalysis("lsqr", shrinkage="auto"), support, labels, query, num_classes)


def nearest_centroid(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Normals about the class means, with variances shared by the classes; of one example a class, the nearest."""
    from sklearn.neighbors import NearestCentroid

    if _is_one_each(labels):
        return nearest_neighbors(support, labels, query, num_classes)
    return _fit_predict(NearestCentroid(priors="empirical"), support, labels, query, num_classes)


def nearest_neighbors(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Shares of the classes among the nearest examples, as many as the square root of k, by distance."""
    from sklearn.neighbors import KNeighborsClassifier

    count = max(1, round(len(labels) ** 0.5))
    return _fit_predict(KNeighborsClassifier(count, weights="distance"), support, labels, query, num_classes)


def kernel_ridge(support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
    """Kernel ridge regression on one-hot labels, cut off to probabilities.

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


BASELINES: dict[str, Baseline] = {
    "logistic_regression": logistic_regression,
    "logistic_regression_cv": logistic_regression_cv,
    "linear_discriminant": linear_discriminant,
    "nearest_centroid": nearest_centroid,
    "nearest_neighbours": nearest_neighbors,
    "kernel_ridge": kernel_ridge,
}

__all__ = ["BASELINES", "Baseline", "logistic_regression"]
