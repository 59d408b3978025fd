"""Candidate labels without examples: the conventions of zero-shot classification."""

from pathlib import Path
from typing import Any

import pytest
from helpers.builders import build_tokenizer, compose, make_examples, make_pipeline, make_texts
from helpers.media_backbones import compose_media, make_media, processor_of
from transformers import AutoModelForSequenceClassification, BertConfig, Pipeline, pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification


LABELS = ["w1 w2", "w3 w8", "w4 w5 w6"]
TEXTS = make_texts(3, seed=5)
MEDIA = [("vit", "image", "image_processor"), ("wav2vec2", "audio", "feature_extractor")]


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A pipeline without examples; tests leave it as it is."""
    return make_pipeline(compose(views="plain"), examples=None)


@pytest.fixture(scope="module")
def entails() -> Pipeline:
    """The zero-shot pipeline of transformers with a tiny random model of natural language inference."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    config = BertConfig(vocab_size=99, **sizes, id2label=names, label2id={name: i for i, name in names.items()})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    return pipeline("zero-shot-classification", model=model, tokenizer=build_tokenizer())


def shape_of(value: Any) -> Any:
    """Return types, keys in order and lengths of an answer."""
    if isinstance(value, dict):
        return [(key, shape_of(each)) for key, each in value.items()]
    return [shape_of(each) for each in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("texts", [TEXTS[0], TEXTS, TEXTS[:1]], ids=["one", "list", "list of one"])
@pytest.mark.parametrize(
    "options",
    [
        {"candidate_labels": LABELS},
        {"candidate_labels": ",".join(LABELS)},
        {"candidate_labels": " w1 w2 , w3 w8,, "},
        {"candidate_labels": "w3 w8"},
        {"candidate_labels": ["w3 w8"]},
        {"candidate_labels": LABELS, "multi_label": True},
        {"candidate_labels": LABELS, "hypothesis_template": "w7 {}"},
    ],
    ids=["list", "string", "spaces", "single", "list of one", "multi_label", "template"],
)
def test__candidate_labels__arguments_and_answers__those_of_zero_shot_classification(
    texts: Any, options: dict, classify: TartClassificationPipeline, entails: Pipeline
) -> None:
    ours, theirs = classify(texts, **options), entails(texts, **options)
    assert shape_of(ours) == shape_of(theirs)
    for our, their in zip(*([each] if isinstance(each, dict) else each for each in (ours, theirs)), strict=True):
        assert list(our) == ["sequence", "labels", "scores"]
        assert our["sequence"] == their["sequence"]
        assert sorted(our["labels"]) == sorted(their["labels"])
        assert our["scores"] == sorted(our["scores"], reverse=True)
        if len(our["labels"]) > 1 and "multi_label" not in options:
            assert sum(our["scores"]) == pytest.approx(1)
        assert all(0 <= score <= 1 for score in our["scores"])


def test__candidate_labels__second_argument_or_of_construction__same_answers(
    classify: TartClassificationPipeline,
) -> None:
    expected = classify(TEXTS, candidate_labels=LABELS)
    assert classify(TEXTS, LABELS) == expected
    stored = make_pipeline(classify.model, examples=None, candidate_labels=LABELS)
    try:
        assert stored(TEXTS) == expected
        ranked = stored(TEXTS[0], top_k=None)
        assert [each["label"] for each in ranked] == expected[0]["labels"]
        assert list(stored(TEXTS[0], top_k=1)[0]) == ["label", "score"]
        assert stored.model.config.id2label == dict(enumerate(LABELS))
    finally:
        classify.set_examples(None)


def test__multi_label__one_label_more__leaves_the_scores_of_the_others(classify: TartClassificationPipeline) -> None:
    few, many = (classify(TEXTS[0], candidate_labels=LABELS[:n], multi_label=True) for n in (2, 3))
    alone = classify(TEXTS[0], candidate_labels=LABELS[0])
    scores = dict(zip(many["labels"], many["scores"], strict=True))
    for found in (few, alone):
        for label, score in zip(found["labels"], found["scores"], strict=True):
            assert scores[label] == pytest.approx(score, abs=1e-5)


def test__zero_examples__batch_size_and_order__change_nothing(classify: TartClassificationPipeline) -> None:
    texts = make_texts(9, seed=7)
    expected = classify(texts, candidate_labels=LABELS)
    scores = [dict(zip(each["labels"], each["scores"], strict=True)) for each in expected]
    for batch_size in (1, 4):
        found = classify(texts, candidate_labels=LABELS, batch_size=batch_size)
        for each, right in zip(found, scores, strict=True):
            assert dict(zip(each["labels"], each["scores"], strict=True)) == pytest.approx(right, abs=1e-4)
    turned = classify(texts[0], candidate_labels=LABELS[::-1])
    assert dict(zip(turned["labels"], turned["scores"], strict=True)) == pytest.approx(scores[0], abs=1e-4)


def test__candidate_labels_and_examples__classes_in_their_order(classify: TartClassificationPipeline) -> None:
    examples = make_examples(8)
    found = classify(TEXTS[0], ["spam", "w3", "ham"], examples=examples, top_k=None)
    assert {each["label"] for each in found} == {"spam", "w3", "ham"}
    assert list(classify(TEXTS[0], ["spam", "ham"], examples=examples)) == ["label", "score"]
    with pytest.raises(ValueError, match="which is not among the 2 candidate_labels"):
        classify(TEXTS[0], ["spam", "w3"], examples=examples)


def test__zero_examples__saved_and_loaded__same_answers(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone("mini")
    classify = TartClassificationPipeline(model, candidate_labels=["spam", "family"])
    texts = ["Call now to win free cash!", "See you at dinner"]
    expected = classify(texts)
    classify.save_pretrained(tmp_path)
    loaded = pipeline("tart-classification", model=str(tmp_path))
    assert loaded(texts) == expected
    plain = pipeline("text-classification", model=str(tmp_path))(texts)
    assert [each["label"] for each in plain] == [each["labels"][0] for each in expected]
    assert [each["score"] for each in plain] == pytest.approx([each["scores"][0] for each in expected], abs=1e-5)
    card = (tmp_path / "README.md").read_text()
    assert "label_similarity" in card
    assert "This example is {}." in card or "names of the classes" in card


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"candidate_labels": []}, ValueError, "candidate_labels is empty"),
        ({"candidate_labels": ["w1", "w1"]}, ValueError, "candidate_labels names two classes"),
        ({"candidate_labels": ["w1", 2]}, ValueError, "candidate_labels names class 1"),
        ({"candidate_labels": LABELS, "hypothesis_template": "w7"}, ValueError, "hypothesis_template is 'w7'"),
        ({"candidate_labels": LABELS, "multi_label": "yes"}, ValueError, "multi_label is 'yes'"),
        ({"candidate_labels": LABELS, "hints": None}, ValueError, "hints"),
        ({"candidate_labels": ["0", "1"]}, ValueError, "names"),
        ({"hypothesis_template": "w7 {}"}, ValueError, r"\['hypothesis_template'\] need examples or candidate_labels"),
        ({"examples": make_examples(4), "multi_label": True}, ValueError, "multi_label is True, which is for"),
        ({"candidate_labels": LABELS, "label_descriptions": {"w9": "w1"}}, ValueError, "label_descriptions names"),
        ({}, ValueError, "There is no support set"),
    ],
)
def test__call__classes_that_cannot_be_used__named(
    options: dict, error: type[Exception], message: str, classify: TartClassificationPipeline
) -> None:
    with pytest.raises(error, match=message):
        classify(TEXTS[0], **options)


@pytest.mark.parametrize(("family", "kind", "processor"), MEDIA)
def test__media__candidate_labels_alone__clear_error(family: str, kind: str, processor: str) -> None:
    classify = TartClassificationPipeline(compose_media(family), **{processor: processor_of(family)})
    item = make_media(kind, 1)[0]
    with pytest.raises(ValueError, match=r"examples|hints"):
        classify(item, candidate_labels=["cat", "dog"])

    def favor(inputs: list[Any], names: tuple[str, ...]) -> list[list[float]]:
        return [[0.0, 5.0] for _ in inputs]

    assert classify(item, candidate_labels=["cat", "dog"], hints={"mine": favor})["labels"][0] == "dog"
