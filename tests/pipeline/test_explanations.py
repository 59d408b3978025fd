"""Explanations: weights and votes of views and hints, and the examples that counted."""

import json
from pathlib import Path

import pytest
from helpers.builders import build_tokenizer, compose, make_examples, make_pipeline, make_texts
from helpers.media_backbones import compose_media, make_media, make_media_examples, processor_of
from transformers import pipeline

from transformers_tart import TartClassificationPipeline, View


LABELS = ("w1 w2", "w3 w4")
TEXTS = make_texts(3, seed=5)
VIEWS = [View(name="mean"), View(name="last", pooling="last")]


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A pipeline with two views; tests leave it as it is."""
    return make_pipeline(compose(views=VIEWS), examples=make_examples(12, LABELS))


def test__explain__one_text__prediction_votes_and_examples(classify: TartClassificationPipeline) -> None:
    found = classify.explain(TEXTS[0])
    assert list(found) == ["label", "score", "views", "hints", "examples"]
    assert {name: found[name] for name in ("label", "score")} == pytest.approx(classify(TEXTS[0]))
    assert [view["name"] for view in found["views"]] == ["mean", "last"]
    assert [hint["name"] for hint in found["hints"]] == ["label_similarity"]
    for vote in (*found["views"], *found["hints"]):
        assert list(vote) == ["name", "weight", "label", "score"]
        assert vote["label"] in LABELS
        assert 0.5 <= vote["score"] <= 1
    texts = [row["text"] for row in make_examples(12, LABELS)]
    assert len(found["examples"]) == 5
    for example in found["examples"]:
        assert list(example) == ["index", "label", "weight", "text"]
        assert texts[example["index"]] == example["text"]
        assert example["label"] == LABELS[example["index"] % 2]
    weights = [abs(example["weight"]) for example in found["examples"]]
    assert weights == sorted(weights, reverse=True)
    assert json.loads(json.dumps(found)) == found


def test__explain__several_texts__as_each_alone(classify: TartClassificationPipeline) -> None:
    found = classify.explain(TEXTS, num_examples=2)
    assert [len(each["examples"]) for each in found] == [2, 2, 2]
    for text, each in zip(TEXTS, found, strict=True):
        alone = classify.explain(text, num_examples=2)
        assert alone["label"] == each["label"]
        assert alone["score"] == pytest.approx(each["score"], abs=1e-4)


def test__explain__example_itself__counts_most(classify: TartClassificationPipeline) -> None:
    row = make_examples(12, LABELS)[3]
    found = classify.explain(row["text"], hints=None, examples=make_examples(12, LABELS))
    assert found["hints"] == []
    assert found["examples"][0]["index"] == 3


def test__explain__no_examples__hints_alone(classify: TartClassificationPipeline) -> None:
    found = classify.explain(TEXTS[0], candidate_labels=["w5 w6", "w6 w9", "w7 w1"])
    assert found["views"] == found["examples"] == []
    assert found["hints"][0]["weight"] > 0
    assert found["label"] == classify(TEXTS[0], candidate_labels=["w5 w6", "w6 w9", "w7 w1"])["labels"][0]


def test__explain__task_without_texts__no_text(classify: TartClassificationPipeline, tmp_path: Path) -> None:
    expected = classify.explain(TEXTS[0])
    classify.save_pretrained(tmp_path, include_backbone=True)
    found = pipeline("tart-classification", model=str(tmp_path), tokenizer=build_tokenizer()).explain(TEXTS[0])
    assert [list(example) for example in found["examples"]] == [["index", "label", "weight"]] * 5
    assert [each["index"] for each in found["examples"]] == [each["index"] for each in expected["examples"]]


def test__explain__images__votes_and_examples_without_texts() -> None:
    processor = {"image_processor": processor_of("vit")}
    classify = TartClassificationPipeline(compose_media("vit"), examples=make_media_examples("image"), **processor)
    found = classify.explain(make_media("image", 1)[0])
    assert found["views"]
    assert list(found["examples"][0]) == ["index", "label", "weight"]


@pytest.mark.parametrize("count", [0, -1, 2.5, "3"])
def test__explain__number_of_examples__checked(count: object, classify: TartClassificationPipeline) -> None:
    with pytest.raises(ValueError, match="num_examples is"):
        classify.explain(TEXTS[0], num_examples=count)  # type: ignore[arg-type]


def test__explain__argument_of_a_call__refused_by_name(classify: TartClassificationPipeline) -> None:
    for given in ({}, {"examples": make_examples(12, LABELS)}):
        with pytest.raises(TypeError, match=r"unexpected keyword arguments \['batch_size'\]"):
            classify.explain("w1", batch_size=2, **given)
