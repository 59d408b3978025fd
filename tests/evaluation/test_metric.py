"""The metric for `evaluate`: against scikit-learn, in all forms of input, and what it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from transformers_tart.evaluation.metric import TartMetric, load_metric
from transformers_tart.evaluation.metrics import LABEL_METRICS, SCORE_METRICS


pytestmark = pytest.mark.core


BINS = 15
SCORES = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
LABELS = [0, 1, 0]
GUESSES = [0, 1, 1]


@pytest.fixture(scope="module")
def metric() -> TartMetric:
    """All six; it forgets the rows of a test when they are computed."""
    return TartMetric()


def draw(seed: int, rows: int, classes: int, used: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions (n,) unlike the most probable classes, probabilities (n, classes), and labels (n,) below `used`."""
    generator = np.random.default_rng(seed)
    scores = generator.dirichlet(np.ones(classes), rows)
    return generator.integers(classes, size=rows), scores, generator.integers(used, size=rows)


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """The definition, bin by bin."""
    confidence, right = scores.max(1), scores.argmax(1) == labels
    error = 0.0
    for i in range(BINS):
        inside = (i / BINS < confidence) & (confidence <= (i + 1) / BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(data=st.data(), seed=st.integers(0, 10_000), rows=st.integers(1, 40), classes=st.integers(2, 6))
def test__compute__random_predictions__those_of_scikit_learn(
    metric: TartMetric, data: st.DataObject, seed: int, rows: int, classes: int
) -> None:
    guesses, scores, labels = draw(seed, rows, classes, used=data.draw(st.integers(1, classes)))
    known = list(range(classes))
    expected = {
        "accuracy": reference.accuracy_score(labels, guesses),
        "macro_f1": reference.f1_score(labels, guesses, average="macro"),
        "matthews_correlation": reference.matthews_corrcoef(labels, guesses),
        "log_loss": reference.log_loss(labels, scores, labels=known),
        "brier_score": reference.brier_score_loss(labels, scores, labels=known, scale_by_half=False),
        "calibration_error": calibration_error(scores, labels),
    }
    found = metric.compute(predictions=guesses, prediction_scores=scores, references=labels)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found == metric.measure(*map(torch.from_numpy, (guesses, labels, scores)))


def test__compute__labels_alone__no_metric_of_probabilities(metric: TartMetric) -> None:
    assert set(metric.compute(predictions=GUESSES, references=LABELS)) == set(LABEL_METRICS)


def test__compute__probabilities_alone__their_most_probable_classes(metric: TartMetric) -> None:
    expected = metric.compute(predictions=GUESSES, prediction_scores=SCORES, references=LABELS)
    assert set(expected) == {*LABEL_METRICS, *SCORE_METRICS}
    assert metric.compute(prediction_scores=SCORES, references=LABELS) == expected


@pytest.mark.parametrize("guess", [0, 1])
def test__compute__one_class_alone__defined(guess: int, metric: TartMetric) -> None:
    found = metric.compute(predictions=[guess] * 3, references=[0] * 3)
    assert found == {"accuracy": 1.0 - guess, "macro_f1": 1.0 - guess, "matthews_correlation": 0.0}


def test__compute__label_of_probability_zero__clipped_as_by_scikit_learn(metric: TartMetric) -> None:
    scores = [[1.0, 0.0], [0.0, 1.0]]
    found = metric.compute(prediction_scores=scores, references=[1, 1])["log_loss"]
    assert found == pytest.approx(reference.log_loss([1, 1], scores, labels=[0, 1]), abs=1e-9)
    assert found == pytest.approx(36.04 / 2, abs=0.01)


@pytest.mark.parametrize(
    "form",
    [
        np.array,
        tuple,
        torch.tensor,
        lambda rows: [torch.tensor(row) for row in rows],
        lambda rows: [np.array(row) for row in rows],
        lambda rows: torch.tensor(rows, requires_grad=isinstance(rows[0], list)),
        lambda rows: Dataset.from_dict({"rows": rows})["rows"],
    ],
    ids=["array", "tuple", "tensor", "tensors", "arrays", "gradient", "column"],
)
def test__compute__other_forms__same_values(form: Callable, metric: TartMetric) -> None:
    expected = metric.compute(predictions=GUESSES, prediction_scores=SCORES, references=LABELS)
    found = metric.compute(predictions=form(GUESSES), prediction_scores=form(SCORES), references=form(LABELS))
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test__compute__half_precision__taken(dtype: torch.dtype, metric: TartMetric) -> None:
    scores = torch.randn(20, 77).to(dtype).softmax(1)
    assert metric.compute(prediction_scores=scores, references=scores.argmax(1))["accuracy"] == 1.0


@pytest.mark.slow
@given(cuts=st.lists(st.integers(1, 11), unique=True))
def test__add__rows_in_any_batches__as_at_once(metric: TartMetric, cuts: list[int]) -> None:
    guesses, scores, labels = draw(0, 12, 3, 3)
    rows = {"predictions": guesses, "prediction_scores": scores, "references": labels}
    metric.add(prediction=guesses[0], prediction_scores=scores[0], reference=labels[0])
    edges = [1, *sorted({*cuts} - {1}), 12]
    for start, stop in zip(edges, edges[1:], strict=False):
        metric.add_batch(**{name: values[start:stop] for name, values in rows.items()})
    assert len(metric) == 12
    assert metric.compute() == metric.compute(**rows)


def test__add__batches_unlike_each_other__refused_and_forgotten(metric: TartMetric) -> None:
    metric.add_batch(predictions=GUESSES, references=LABELS)
    metric.add(reference=0, prediction_scores=SCORES[0])
    with pytest.raises(ValueError, match="give prediction_scores of the same number of classes with each of them"):
        metric.compute()
    assert metric.compute(predictions=[0], references=[0])["accuracy"] == 1.0


def test__compute__rows_kept_in_a_file__same_values_and_no_file_left(tmp_path: Path, metric: TartMetric) -> None:
    filed = TartMetric(keep_in_memory=False, cache_dir=str(tmp_path))
    expected = metric.compute(prediction_scores=SCORES, references=LABELS)
    assert filed.compute(prediction_scores=SCORES, references=LABELS) == expected
    assert list(tmp_path.rglob("*.arrow")) == []


@pytest.mark.parametrize("name", [*LABEL_METRICS, *SCORE_METRICS])
def test__config_name__one_metric__that_alone(name: str, metric: TartMetric) -> None:
    expected = metric.compute(prediction_scores=SCORES, references=LABELS)[name]
    assert TartMetric(name).compute(prediction_scores=SCORES, references=LABELS) == {name: expected}


def test__config_name__wrong_use__says_what_to_give() -> None:
    with pytest.raises(ValueError, match="must be one of .*'brier_score'"):
        TartMetric("brier")
    with pytest.raises(ValueError, match="needs probabilities: give prediction_scores"):
        TartMetric("brier_score").compute(predictions=GUESSES, references=LABELS)


def test__combine__with_other_metrics__all_their_values(metric: TartMetric) -> None:
    combined = evaluate.combine({"all": TartMetric(), "one": TartMetric("accuracy")})
    assert set(combined.compute(predictions=GUESSES, references=LABELS)) == {
        "all_accuracy",
        "macro_f1",
        "matthews_correlation",
        "one_accuracy",
    }
    combined.add_batch(predictions=GUESSES, references=LABELS, prediction_scores=SCORES)
    combined.add(prediction=0, reference=0, prediction_scores=SCORES[0])
    expected = metric.compute(prediction_scores=[*SCORES, SCORES[0]], references=[*LABELS, 0])
    accuracy = expected.pop("accuracy")
    assert combined.compute() == {**expected, "all_accuracy": accuracy, "one_accuracy": accuracy}
    labels_alone = evaluate.combine([TartMetric("accuracy"), TartMetric("macro_f1")])
    labels_alone.add_batch(predictions=GUESSES, references=LABELS)
    assert labels_alone.compute() == {"accuracy": accuracy_of(GUESSES), "macro_f1": pytest.approx(2 / 3)}


def accuracy_of(guesses: list[int]) -> float:
    return sum(guess == label for guess, label in zip(guesses, LABELS, strict=True)) / len(LABELS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "There are no rows; give predictions and references"),
        ({"predictions": [], "references": []}, "has no rows"),
        ({"predictions": [0]}, "Give references"),
        ({"references": [0]}, "with them predictions or prediction_scores"),
        ({"predictions": [0, 1], "references": [0]}, "numbers of rows differ"),
        ({"predictions": [0], "references": [0], "prediction_scores": SCORES}, "numbers of rows differ"),
        ({"predictions": ["ham"], "references": [0]}, "no integers"),
        ({"predictions": [0.5], "references": [0]}, "no integers"),
        ({"predictions": [float("nan")], "references": [0]}, "no integers"),
        ({"predictions": SCORES, "references": LABELS}, "Give probabilities as prediction_scores"),
        ({"predictions": 0, "references": [0]}, "give a list, an array or a tensor"),
        ({"predictions": [0], "references": [-1]}, "often marked by -1: leave them out"),
        ({"prediction_scores": SCORES, "references": [0, 1, 2]}, "label 2 in references, but .* have 2 classes"),
        ({"prediction_scores": [0.5, 0.5], "references": [0, 1]}, r"must be \(n, num_classes\)"),
        ({"prediction_scores": [[0.5, 0.5], [1.0]], "references": [0, 1]}, "different lengths"),
        ({"prediction_scores": [[0.5, 0.5], [0.5, 0.6]], "references": [0, 1]}, "1 of 2 rows.* row 1 .* to 1.1"),
        ({"prediction_scores": [[-1.0, 2.0]], "references": [0]}, "no probabilities: row 0"),
        ({"prediction_scores": [[float("nan"), 1.0]], "references": [0]}, "no probabilities: row 0"),
    ],
)
def test__compute__wrong_rows__says_what_is_wrong_and_keeps_none(
    rows: dict[str, Any], message: str, metric: TartMetric
) -> None:
    with pytest.raises(ValueError, match=message):
        metric.compute(**rows)
    assert len(metric) == 0


def test__load_metric__name_or_metric__that_metric(metric: TartMetric) -> None:
    assert isinstance(load_metric("tart"), TartMetric)
    assert load_metric(metric) is metric
    combined = evaluate.combine([metric])
    assert load_metric(combined) is combined


@pytest.mark.slow
def test__load_metric__hub_out_of_reach__says_what_needs_none() -> None:
    with pytest.raises(OSError, match=r'"nobody/nothing" cannot be loaded.* "tart" needs no Hub'):
        load_metric("nobody/nothing")
    with pytest.raises(TypeError, match="The metric is int"):
        load_metric(3)
