"""Baselines are scikit-learn's, each with a probability for every class."""

import pytest
import torch
from helpers.builders import draw_task
from sklearn.linear_model import LogisticRegression

from transformers_tart.evaluation.methods.baselines import BASELINES, logistic_regression


pytestmark = pytest.mark.core


def draw(classes: int, k: int = 24) -> tuple[torch.Tensor, ...]:
    return tuple(tensor[0] for tensor in draw_task(k, 60, classes=classes, gap=2.0))


def test__logistic_regression__three_classes__scikit_learns_probabilities() -> None:
    support, labels, query, _ = draw(3)
    expected = LogisticRegression(max_iter=2000).fit(support.double(), labels).predict_proba(query.double())
    torch.testing.assert_close(logistic_regression(support, labels, query, 3), torch.from_numpy(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("classes", [2, 5])
def test__baseline__separable_classes__found_with_probabilities(name: str, classes: int) -> None:
    support, labels, query, truth = draw(classes)
    probabilities = BASELINES[name](support, labels, query, classes)
    assert probabilities.shape == (60, classes)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(60, dtype=torch.float64))
    assert (probabilities >= 0).all()
    assert (probabilities.argmax(1) == truth).double().mean() > 0.8


@pytest.mark.parametrize("name", BASELINES)
def test__baseline__class_without_example__probability_zero(name: str) -> None:
    support, labels, query, _ = draw(2)
    probabilities = BASELINES[name](support, labels * 2, query, 4)
    assert torch.equal(probabilities[:, [1, 3]], torch.zeros(60, 2, dtype=torch.float64))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(60, dtype=torch.float64))


@pytest.mark.parametrize("name", BASELINES)
def test__baseline__one_example_a_class__answers(name: str) -> None:
    support, labels, query, _ = draw(2, k=2)
    assert torch.isfinite(BASELINES[name](support, labels, query, 2)).all()
