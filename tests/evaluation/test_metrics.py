"""Metrics against scikit-learn and against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from transformers_tart.evaluation.metrics import (
    CALIBRATION_BINS,
    METRICS,
    accuracy,
    brier_score,
    calibration_bins,
    calibration_error,
    confusion,
    log_loss,
    most_confidently_wrong,
)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test__metrics__random_predictions__those_of_scikit_learn(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(50, classes, generator=generator, dtype=torch.float64).softmax(1)
    labels = torch.randint(classes, (50,), generator=generator)
    known = list(range(classes))
    assert accuracy(probabilities, labels) == pytest.approx(reference.accuracy_score(labels, probabilities.argmax(1)))
    assert log_loss(probabilities, labels) == pytest.approx(reference.log_loss(labels, probabilities, labels=known))
    truth = torch.nn.functional.one_hot(labels, classes)
    assert brier_score(probabilities, labels) == pytest.approx(
        classes * reference.mean_squared_error(truth, probabilities)
    )


def test__calibration_error__worked_example__its_value() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = torch.tensor([0, 1, 0, 0])
    # confidence .9 twice, right once: 2 * .4; confidence .6 twice, right once: 2 * .1
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.4 + 2 * 0.1) / 4)


def test__calibration_bins__worked_example__right_edges_included() -> None:
    probabilities = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.25, 0.75]], dtype=torch.float64)
    bins = calibration_bins(probabilities, torch.tensor([0, 0, 0, 1]))
    assert len(bins) == CALIBRATION_BINS == 15
    assert bins[14] == pytest.approx([1, 0.95, 1])
    assert bins[8] == pytest.approx([1, 0.6, 1])
    assert bins[11] == pytest.approx([2, 1.55, 1])
    assert sum(count for count, _, _ in bins) == 4


def test__metrics__certain_and_right__perfect() -> None:
    probabilities = torch.eye(3)
    values = {name: metric(probabilities, torch.arange(3)) for name, metric in METRICS.items()}
    assert values == {"accuracy": 1.0, "log_loss": pytest.approx(0.0), "brier_score": 0.0, "calibration_error": 0.0}


def test__log_loss__certain_and_wrong__finite() -> None:
    assert log_loss(torch.eye(2), torch.tensor([1, 0])) == pytest.approx(36.04, abs=0.01)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6))
def test__confusion__random_predictions__that_of_scikit_learn(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predictions, labels = (torch.randint(classes, (30,), generator=generator) for _ in range(2))
    dense = torch.zeros(classes, classes, dtype=torch.int64)
    for label, predicted, count in confusion(predictions, labels):
        dense[label, predicted] = count
    assert dense.tolist() == reference.confusion_matrix(labels, predictions, labels=list(range(classes))).tolist()


def test__most_confidently_wrong__two_of_four_wrong__the_surest_first() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.05, 0.95]], dtype=torch.float64)
    found = most_confidently_wrong(probabilities, torch.tensor([0, 0, 0, 0]))
    assert found == [[3, 1, 0.95], [1, 1, 0.7]]
    assert most_confidently_wrong(probabilities, torch.tensor([0, 0, 0, 0]), count=1) == found[:1]
    assert most_confidently_wrong(probabilities, torch.tensor([0, 1, 0, 1])) == []
