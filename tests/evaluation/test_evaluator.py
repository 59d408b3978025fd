"""The evaluator for `evaluate`: against a plain loop over the pipeline, and what it refuses."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import scipy.stats
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from helpers.builders import (
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    save_backbone,
    score_all,
)
from PIL import Image as PillowImage
from transformers import ViTConfig, ViTImageProcessor, ViTModel, pipeline

from transformers_tart import TartClassificationPipeline, evaluation
from transformers_tart.evaluation.evaluator import TartEvaluator
from transformers_tart.evaluation.metric import TartMetric
from transformers_tart.evaluation.metrics import LABEL_METRICS, SCORE_METRICS


pytestmark = pytest.mark.core


NAMES = ["a", "b", "c"]
TEXTS = make_texts(20, seed=5)
LABELS = [i * 7 % 5 % 3 for i in range(20)]
SPEED = {"total_time_in_seconds", "samples_per_second", "latency_in_seconds"}
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})


class Agreement(evaluate.Metric):
    """A metric of others: the share of equal labels."""

    def _info(self) -> evaluate.MetricInfo:
        features = Features({"predictions": Value("int32"), "references": Value("int32")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"agreement": float(np.mean(np.array(predictions) == np.array(references)))}


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline of three classes; tests leave its support set as it is."""
    return make_pipeline(examples=make_examples(24, ("a", "b", "c")))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Labeled texts, the labels as numbers of named classes."""
    return Dataset.from_dict({"text": TEXTS, "label": LABELS}, FEATURES)


@pytest.fixture(scope="module")
def guesses(classify: TartClassificationPipeline) -> np.ndarray:
    """The answers of a plain loop, as class numbers (n,)."""
    return np.array([NAMES.index(classify(text)["label"]) for text in TEXTS])


@pytest.fixture(scope="module")
def evaluator() -> TartEvaluator:
    """What the registry gives."""
    return evaluate.evaluator("tart-classification")


def test__registry__task__this_evaluator(evaluator: TartEvaluator) -> None:
    assert isinstance(evaluator, TartEvaluator)
    assert evaluator.prepare_metric(None).config_name == "accuracy"
    assert TartEvaluator().prepare_metric("tart").config_name == "default"


def test__compute__accuracy__that_of_a_plain_loop(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset, guesses: np.ndarray
) -> None:
    found = evaluator.compute(classify, data)
    assert set(found) == {"accuracy", *SPEED}
    assert found["accuracy"] == np.mean(guesses == LABELS)
    assert 0 < found["accuracy"] < 1
    assert found["samples_per_second"] == pytest.approx(len(data) / found["total_time_in_seconds"])


def test__compute__all_metrics__those_of_the_probabilities(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset, guesses: np.ndarray
) -> None:
    found = evaluator.compute(classify, data, metric="tart")
    scores = score_all(classify, TEXTS)
    expected = TartMetric().compute(predictions=guesses, prediction_scores=scores, references=LABELS)
    assert set(expected) == {*LABEL_METRICS, *SCORE_METRICS}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def test__compute__metric_of_others__given_labels_alone(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset, guesses: np.ndarray
) -> None:
    agreement = Agreement(keep_in_memory=True)
    for metric in (agreement, evaluate.combine([agreement])):
        assert evaluator.compute(classify, data, metric=metric)["agreement"] == np.mean(guesses == LABELS)
    options = {"strategy": "bootstrap", "n_resamples": 20, "random_state": 0}
    ours = evaluator.compute(classify, data, **options)["accuracy"]
    assert evaluator.compute(classify, data, metric=agreement, **options)["agreement"] == ours


@pytest.mark.slow
def test__compute__bootstrap__that_of_scipy_on_a_plain_loop(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset, guesses: np.ndarray
) -> None:
    options: dict[str, Any] = {"n_resamples": 200, "random_state": 3, "confidence_level": 0.8}
    found = evaluator.compute(classify, data, strategy="bootstrap", **options)
    expected = scipy.stats.bootstrap(
        (guesses, LABELS), lambda x, y: np.mean(x == y), paired=True, vectorized=False, **options
    )
    assert set(found) == {"accuracy", *SPEED}
    assert found["accuracy"]["score"] == np.mean(guesses == LABELS)
    assert found["accuracy"]["confidence_interval"] == pytest.approx(tuple(expected.confidence_interval))
    assert found["accuracy"]["standard_error"] == pytest.approx(expected.standard_error)
    everything = evaluator.compute(classify, data, metric="tart", strategy="bootstrap", **options)
    assert everything["accuracy"] == found["accuracy"]
    assert set(everything) == {*LABEL_METRICS, *SCORE_METRICS, *SPEED}
    assert all(everything[name]["standard_error"] > 0 for name in SCORE_METRICS)


@pytest.mark.slow
def test__compute__examples__those_of_this_call(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset
) -> None:
    examples = make_examples(12, ("c", "b", "a"), seed=9)
    stored = classify.model.support
    expected = np.mean([NAMES.index(classify(t, examples=examples)["label"]) for t in TEXTS] == np.array(LABELS))
    assert evaluator.compute(classify, data, examples=examples)["accuracy"] == expected
    encoded = classify.model.encode_support(examples, classify.tokenizer)
    assert evaluator.compute(classify, data, examples=encoded)["accuracy"] == expected
    assert classify.model.support is stored


def test__compute__model_or_folder__as_its_pipeline(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset, guesses: np.ndarray, tmp_path: Path
) -> None:
    examples = make_examples(24, ("a", "b", "c"))
    expected = np.mean(guesses == LABELS)
    found = evaluator.compute(compose(), data, tokenizer=build_tokenizer(), device=-1, examples=examples)
    assert found["accuracy"] == expected
    found = evaluator.compute(save_backbone(tmp_path), data, device=-1, examples=examples)
    assert found["accuracy"] == expected


def test__compute__pairs_and_other_columns__as_the_pipeline(
    evaluator: TartEvaluator, classify: TartClassificationPipeline
) -> None:
    pairs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)]
    answers = [classify(pair)["label"] for pair in pairs]
    rows = {"one": TEXTS, "two": TEXTS[::-1], "truth": answers[:-1] + ["a" if answers[-1] != "a" else "b"]}
    columns = {"input_column": "one", "second_input_column": "two", "label_column": "truth"}
    found = evaluator.compute(classify, Dataset.from_dict(rows), **columns)
    assert found["accuracy"] == pytest.approx(1 - 1 / len(TEXTS))


def test__compute__label_mapping__of_classes_that_are_one_in_the_data(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, guesses: np.ndarray
) -> None:
    mapping = {"a": 0, "b": 1, "c": 1}
    truth = [min(label, 1) for label in LABELS]
    rows = Dataset.from_dict({"text": TEXTS, "label": truth})
    found = evaluator.compute(classify, rows, metric="tart", label_mapping=mapping)
    assert found["accuracy"] == np.mean(np.minimum(guesses, 1) == truth)
    scores = score_all(classify, TEXTS).double().numpy()
    merged = np.stack([scores[:, 0], scores[:, 1:].sum(1)], axis=1)
    expected = TartMetric("brier_score").compute(prediction_scores=merged, references=truth)["brier_score"]
    assert found["brier_score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": None}, ValueError, "valid `data` object"),
        ({"data": Dataset.from_dict({"text": [], "label": []})}, ValueError, "no rows"),
        ({"input_column": "sentence"}, ValueError, "Invalid `input_column` sentence"),
        ({"strategy": "jackknife"}, ValueError, "strategy is \"jackknife\"; it must be one of .*'bootstrap'"),
        ({"metric": "nobody/nothing"}, OSError, "cannot be loaded"),
        ({"data": "fancyzhx/ag_news"}, OSError, '"fancyzhx/ag_news" cannot be loaded.*a loaded datasets.Dataset'),
        ({"data": "fancyzhx/ag_news", "split": "test"}, OSError, "cannot be loaded"),
        ({"model_or_pipeline": len}, ValueError, "must be a tart-classification pipeline, a model"),
        ({"device": 0}, ValueError, "was instantiated on CPU"),
        ({"examples": make_examples(8, ("x", "y"))}, ValueError, "label_mapping"),
    ],
)
def test__compute__wrong_arguments__refused_before_any_text_is_read(
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    evaluator: TartEvaluator,
    classify: TartClassificationPipeline,
    data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "call_pipeline", lambda *args, **kwargs: pytest.fail("texts were classified"))
    with pytest.raises(error, match=message):
        evaluator.compute(**{"model_or_pipeline": classify, "data": data, **arguments})


def test__compute__several_labels__refused(
    evaluator: TartEvaluator, classify: TartClassificationPipeline, data: Dataset
) -> None:
    examples = [
        {"text": text, "label": labels}
        for text, labels in zip(make_texts(4), (["a"], ["b"], ["a", "b"], []), strict=True)
    ]
    with pytest.raises(ValueError, match="one label for each example"):
        evaluator.compute(classify, data=data, examples=examples)


def test__compute__no_support_set__says_what_to_give(evaluator: TartEvaluator, data: Dataset) -> None:
    with pytest.raises(ValueError, match="no support set: pass examples"):
        evaluator.compute(make_pipeline(examples=None), data)


def test__evaluator__pipeline_of_images__same_as_a_loop() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    vit = ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8))
    rng = np.random.default_rng(0)
    shades = [rng.normal(60 + 90 * (i % 2), 20, (16, 16, 3)).clip(0, 255).astype(np.uint8) for i in range(16)]
    features = Features({"image": Image(), "label": ClassLabel(names=["dark", "light"])})
    pictures = [PillowImage.fromarray(shade) for shade in shades]
    data = Dataset.from_dict({"image": pictures, "label": [i % 2 for i in range(16)]}, features=features)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    pipe = pipeline("tart-classification", model=vit, image_processor=processor, examples=data.select(range(8)))
    tested = data.select(range(8, 16))
    found = evaluation.TartEvaluator().compute(pipe, data=tested, input_column="image")
    right = [pipe(row["image"])["label"] == ["dark", "light"][row["label"]] for row in tested]
    assert found["accuracy"] == sum(right) / 8 > 0.5
    given = {"examples": data.select(range(8)), "input_column": "image"}
    empty = pipeline("tart-classification", model=vit, image_processor=processor)
    assert evaluation.TartEvaluator().compute(empty, data=tested, **given)["accuracy"] == found["accuracy"]
    broken = Dataset.from_dict({"image": [b"no image"], "label": [0]})
    with pytest.raises(ValueError, match="1 of 1 inputs cannot be read"):
        evaluation.TartEvaluator().compute(pipe, data=broken, input_column="image")


def test__evaluation__unknown_name__attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TartEvaluators'"):
        _ = evaluation.TartEvaluators
