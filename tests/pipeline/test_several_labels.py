"""Several labels an example: tasks of one label each over the same embeddings."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_tokenizer, compose, make_pipeline, make_texts, score_all
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, pipeline

from transformers_tart import SupportSet
from transformers_tart.embeddings.text import Embedder


NAMES = ("w1 w2", "w30 w31", "w60 w61")
NEW = "w20 w21"
TEXTS = make_texts(5, seed=7)
QUERIES = make_texts(6, seed=9)


def make_lists(count: int = 18, seed: int = 0) -> list[dict[str, Any]]:
    """Random texts with none to all of the labels."""
    texts = make_texts(count, seed)
    return [{"text": text, "label": [n for j, n in enumerate(NAMES) if (i >> j) & 1]} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def classify() -> Any:
    """A pipeline with lists of labels and hints."""
    return make_pipeline(compose(), examples=make_lists())


@pytest.mark.parametrize("hints", ["auto", None])
def test__label_lists__each_label__as_a_task_of_its_own(hints: Any) -> None:
    classify = make_pipeline(compose(), examples=make_lists(), hints=hints)
    scores = score_all(classify, TEXTS)
    assert classify.model.support.labels.shape == (18, 3)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores.sum(1) - 1).abs().max() > 1e-3
    support = classify.model.support
    for number, name in enumerate(NAMES if hints is None else ()):
        alone = dataclasses.replace(support, labels=1 - support.labels[:, number], label_names=(name, "none"))
        found = classify(TEXTS, examples=alone, top_k=None)
        own = [next(each["score"] for each in row if each["label"] == name) for row in found]
        assert torch.allclose(scores[:, number], torch.tensor(own), atol=1e-4)


def test__label_lists__formats__best_alone_or_listed(classify: Any) -> None:
    listed = classify(TEXTS, top_k=None)
    assert classify(TEXTS) == [row[0] for row in listed]
    assert classify(TEXTS, multi_label=True) == classify(TEXTS)
    logits = classify(TEXTS[0], top_k=None, function_to_apply="none")
    assert torch.allclose(
        torch.tensor([each["score"] for each in logits]).sigmoid(), torch.tensor([e["score"] for e in listed[0]])
    )
    assert 0 <= classify(TEXTS[0], out_of_scope=True)["out_of_scope"] < 1
    assert classify(TEXTS[0], abstain_below=1.0)["label"] is None


def test__label_lists__saved__same_logits_in_all_pipelines(classify: Any, tmp_path: Path) -> None:
    model = compose()
    model.backbone.save_pretrained(tmp_path / "backbone")
    build_tokenizer().save_pretrained(tmp_path / "backbone")
    classify = pipeline("tart-classification", model=str(tmp_path / "backbone"), examples=make_lists())
    classify.save_pretrained(tmp_path / "task")
    config = json.loads((tmp_path / "task" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    again = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert again(TEXTS, top_k=None) == classify(TEXTS, top_k=None)
    stock = pipeline("text-classification", model=str(tmp_path / "task"))
    assert torch.allclose(score_all(stock, TEXTS), score_all(classify, TEXTS), atol=1e-4)
    loaded = AutoModel.from_pretrained(tmp_path / "task")
    assert loaded.support.is_multi_label
    again.set_examples([{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(make_texts(6))])
    assert again.model.config.problem_type is None


def test__label_lists__loss__binary_cross_entropy(classify: Any) -> None:
    batch = build_tokenizer()(TEXTS, return_tensors="pt", padding=True)
    labels = torch.tensor([[1.0, 0.0, 1.0]] * len(TEXTS))
    found = classify.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(found.logits, labels)
    assert torch.allclose(found.loss, expected)
    for wrong in (labels[:, 0].long(), labels * 2):
        with pytest.raises(ValueError, match="must be 0 or 1"):
            classify.model(**batch, labels=wrong)


@settings(deadline=None, max_examples=5)
@given(st.permutations(range(3)), st.permutations(range(18)))
def test__label_lists__order_of_classes_and_examples__does_not_matter(places: list[int], order: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, queries = torch.randn(18, 1, 32, generator=generator), torch.randn(4, 1, 32, generator=generator)
    labels = torch.tensor([[(i >> j) & 1 for j in range(3)] for i in range(18)])
    first, second = (
        MODEL.answer(queries, MODEL.prepare_embedded(support))
        for support in (
            SupportSet(embeddings, labels, NAMES),
            SupportSet(embeddings[order], labels[order][:, places], tuple(NAMES[i] for i in places)),
        )
    )
    assert torch.allclose(first[:, places], second, atol=1e-3)


MODEL = compose(pooling="mean", layers=-1)


def test__label_lists__where_they_cannot_be__errors(classify: Any) -> None:
    for call in (
        lambda: classify.explain(TEXTS[0]),
        lambda: classify.suggest(TEXTS),
        lambda: classify(TEXTS[0], coverage=0.9),
    ):
        with pytest.raises(ValueError, match="this one has lists"):
            call()
    with pytest.raises(
        ValueError, match="The labels are single ones, and the support set was made of examples with li"
    ):
        classify.add_examples([{"text": "w1", "label": NAMES[0]}])
    with pytest.raises(ValueError, match="The labels are lists, and the support set was made of examples with one"):
        make_pipeline().add_examples(make_lists(2))
    with pytest.raises(ValueError, match="None of the 2 examples have the label 'w30 w31'"):
        classify.remove_examples(range(2, 18))
    assert len(classify.model.support) == 18
    with pytest.raises(ValueError, match='protocol="stream"'):
        make_pipeline(compose(protocol="vanilla"), examples=make_lists())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["a"], ["a", "b"]], "All of the 2 examples have the label 'a'"),
        ([["a"], []], "one label in all"),
        ([["a"], ["b"]], "candidate"),
    ],
)
def test__label_lists__label_of_all_or_none__named(labels: list, message: str) -> None:
    rows = [{"text": text, "label": own} for text, own in zip(TEXTS, labels, strict=False)]
    more = {"candidate_labels": ["a", "b", "candidate"]} if message == "candidate" else {}
    with pytest.raises(ValueError, match=message):
        make_pipeline(compose(), examples=rows, **more)


@pytest.mark.parametrize("hints", ["auto", None])
def test__label_lists__grow_and_shrink__as_encoded_anew(hints: Any) -> None:
    more = [{"text": text, "label": own} for text, own in zip(TEXTS, ([NEW, NAMES[2]], [], [NEW]), strict=False)]
    grown = make_pipeline(compose(), examples=make_lists()[:14], hints=hints)
    grown.add_examples(make_lists()[14:])
    grown.add_examples(more[:2])
    grown.add_examples(more[2:])
    whole = make_pipeline(compose(), examples=[*make_lists(), *more], hints=hints)
    assert grown.model.support.label_names == whole.model.support.label_names == (NAMES[0], NEW, *NAMES[1:])
    assert grown.model.support.labels.equal(whole.model.support.labels)
    assert (score_all(grown, QUERIES) - score_all(whole, QUERIES)).abs().max() < 1e-5
    grown.remove_examples([make_lists()[2], more[1]])
    grown.remove_examples(0)
    left = make_pipeline(compose(), examples=[make_lists()[1], *make_lists()[3:], more[0], more[2]], hints=hints)
    assert (score_all(grown, QUERIES) - score_all(left, QUERIES)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="with this text and label"):
        grown.remove_examples({"text": more[0]["text"], "label": [NEW]})


def test__label_lists__one_added__only_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    classify, read = make_pipeline(compose(), examples=make_lists()), list[Any]()
    tokenize = Embedder.tokenize
    monkeypatch.setattr(Embedder, "tokenize", lambda *given: (read.extend(given[2]), tokenize(*given))[1])
    classify.add_examples({"text": [TEXTS[0]], "label": [[NAMES[1], NAMES[0]]]})
    assert read == TEXTS[:1]


def test__label_lists__candidate_labels_alone__get_examples_and_lose_them() -> None:
    names = list(NAMES[::-1])
    grown = make_pipeline(compose(), examples=None, candidate_labels=names)
    alone = grown(TEXTS[0], multi_label=True)
    grown.add_examples(make_lists())
    whole = make_pipeline(compose(), examples=make_lists(), candidate_labels=names)
    assert (score_all(grown, QUERIES) - score_all(whole, QUERIES)).abs().max() < 1e-5
    grown.remove_examples(range(18))
    again = grown(TEXTS[0])
    assert again["labels"] == alone["labels"]
    assert again["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test__label_lists__integers_saved__grow_after_loading(tmp_path: Path) -> None:
    model = compose()
    model.backbone.save_pretrained(tmp_path / "backbone")
    build_tokenizer().save_pretrained(tmp_path / "backbone")
    rows = [{**row, "label": [NAMES.index(name) for name in row["label"]]} for row in make_lists()]
    classify = pipeline("tart-classification", model=str(tmp_path / "backbone"), examples=rows)
    classify.save_pretrained(tmp_path / "task")
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    loaded.add_examples([{"text": TEXTS[0], "label": [3, 1]}, {"text": TEXTS[1], "label": []}])
    loaded.remove_examples([{"text": TEXTS[1], "label": []}])
    assert loaded.model.support.label_names == ("0", "1", "2", "3")
    assert [each["label"] for each in loaded(TEXTS[0], top_k=None)][0] in range(4)
    with pytest.raises(ValueError, match="The labels are strings, and those of the support set are integers"):
        loaded.add_examples([{"text": TEXTS[2], "label": ["1"]}])


def test__label_lists__other_reasoner__scores_of_its_own() -> None:
    scores = score_all(make_pipeline(compose(reasoner="gpt2"), examples=make_lists()), TEXTS)
    assert scores.shape == (len(TEXTS), 3)
    assert ((scores > 0) & (scores < 1)).all()


def test__estimator__lists_of_labels__refused() -> None:
    from transformers_tart.sklearn import TartClassifier

    rows = torch.randn(4, 8).numpy()
    for labels in ([[0, 1], [1, 0], [1, 1], [0, 0]], [["a"], ["b", "a"], [], ["b"]]):
        with pytest.raises(ValueError, match="several labels of an example; TartClassifier takes one"):
            TartClassifier().fit(rows, labels)


def test__label_lists__all_removed__the_next_examples_may_have_one_label_each() -> None:
    classify = make_pipeline(compose(), examples=make_lists())
    classify.remove_examples(range(18))
    single = [{"text": text, "label": NAMES[i % 3]} for i, text in enumerate(make_texts(6))]
    classify.add_examples(single)
    expected = make_pipeline(compose(), examples=single)
    assert (score_all(classify, QUERIES) - score_all(expected, QUERIES)).abs().max() < 1e-3
