"""Tasks that grow and shrink: examples are added and removed, and only what is new is read."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset
from helpers.builders import (
    WORDS,
    build_backbone,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    save_backbone,
    score_all,
)
from transformers import AutoModelForCausalLM, pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.embeddings.text import Embedder
from transformers_tart.inputs.examples import parse_examples


NAMES = (f"{WORDS[1]} {WORDS[2]}", f"{WORDS[30]} {WORDS[31]}")  # with a meaning, and known to the tokenizer
NEW = f"{WORDS[20]} {WORDS[21]}"
ROWS = make_examples(14, NAMES)
QUERIES = make_texts(6, seed=9)
MORE = [{"text": text, "label": NEW} for text in make_texts(3, seed=5)]


def difference(first: TartClassificationPipeline, second: TartClassificationPipeline) -> float:
    """Largest difference of two pipelines' probabilities of the same classes."""
    scores = score_all(first, QUERIES) - score_all(second, QUERIES)
    return float(scores.abs().max())


class Reader:
    """Texts that a pipeline's embedder has tokenized."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.texts: list[Any] = []
        tokenize = Embedder.tokenize

        def counted(embedder: Embedder, tokenizer: Any, texts: Any) -> Any:
            self.texts += texts
            return tokenize(embedder, tokenizer, texts)

        monkeypatch.setattr(Embedder, "tokenize", counted)


def save_and_load(classify: TartClassificationPipeline, folder: Path) -> TartClassificationPipeline:
    classify.save_pretrained(folder / "task")
    return pipeline("tart-classification", model=str(folder / "task"))


def make_saved(folder: Path, rows: list[dict[str, str]]) -> TartClassificationPipeline:
    model = TartForSequenceClassification.from_backbone(save_backbone(folder / "backbone"))
    return save_and_load(make_pipeline(model, examples=rows), folder)


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test__add_examples__of_old_classes_and_a_new_one__as_all_at_once(model_type: str) -> None:
    model = compose(model_type)
    grown = make_pipeline(model, examples=ROWS[:9])
    grown.add_examples(ROWS[9:13])
    grown.add_examples(MORE)
    grown.add_examples(ROWS[13:])
    whole = make_pipeline(compose(model_type), examples=[*ROWS, *MORE])
    assert grown.model.support.label_names == whole.model.support.label_names
    assert grown.model.support.hints.names == whole.model.support.hints.names
    assert difference(grown, whole) < 1e-5


@pytest.mark.parametrize("softcap", [None, 30.0])
def test__add_examples__label_likelihood__as_all_at_once(softcap: float | None) -> None:
    def build() -> TartForSequenceClassification:
        backbone = AutoModelForCausalLM.from_config(build_backbone("llama").config)
        if softcap is not None:
            backbone.config.final_logit_softcapping = softcap
        backbone.model.load_state_dict(build_backbone("llama").state_dict())
        torch.manual_seed(1)
        torch.nn.init.normal_(backbone.lm_head.weight)
        return TartForSequenceClassification.from_backbone(backbone)

    grown = make_pipeline(build(), examples=ROWS)
    grown.add_examples(MORE)
    whole = make_pipeline(build(), examples=[*ROWS, *MORE])
    assert grown.model.support.hints.names == whole.model.support.hints.names
    assert difference(grown, whole) < 1e-5


def test__add_examples__one_to_many__only_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    classify = make_pipeline(examples=ROWS)
    reader = Reader(monkeypatch)
    classify.add_examples([{"text": QUERIES[0], "label": NAMES[1]}])
    assert reader.texts == QUERIES[:1]
    assert classify.model.support.texts[-1] == QUERIES[0]


def test__add_examples__of_a_new_class__its_name_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    classify = make_pipeline(examples=ROWS)
    reader = Reader(monkeypatch)
    classify.add_examples(MORE)
    assert sum(NEW in text for text in reader.texts) == 1
    assert not any(name in text for name in NAMES for text in reader.texts)


def test__loaded_task__grows__within_the_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_saved(tmp_path, ROWS)
    assert loaded.model.support.texts is None
    reader = Reader(monkeypatch)
    loaded.add_examples([ROWS[0] | {"text": QUERIES[0]}])
    assert reader.texts == QUERIES[:1]
    loaded.remove_examples([ROWS[3], {"text": QUERIES[0], "label": NAMES[0]}])
    loaded.add_examples(MORE)
    whole = make_pipeline(loaded.model, examples=[*ROWS[:3], *ROWS[4:], *MORE])
    again = save_and_load(whole, tmp_path)
    again.remove_examples(MORE)
    assert difference(loaded, whole) < 1e-3
    assert len(again.model.support) == 13


def test__task_without_keys__grows__by_indices(tmp_path: Path) -> None:
    loaded = make_saved(tmp_path, ROWS)
    loaded.model.set_support(replace(loaded.model.support, keys=None))
    loaded.add_examples(MORE)
    with pytest.raises(ValueError, match="by their indices"):
        loaded.remove_examples(MORE)
    loaded.remove_examples([0, 14])
    assert len(loaded.model.support) == 15


def test__remove_examples__added_before__as_never_added() -> None:
    classify, never = make_pipeline(examples=ROWS), make_pipeline(compose(), examples=ROWS)
    more = [{"text": text, "label": NAMES[0]} for text in QUERIES]
    classify.add_examples(more)
    classify.remove_examples(more[1:])
    classify.remove_examples(len(ROWS))
    assert difference(classify, never) < 1e-5


@pytest.mark.parametrize("kind", [np.array, pd.Series, torch.tensor])
def test__remove_examples__array_of_indices__as_a_list(kind: Any) -> None:
    classify = make_pipeline(examples=ROWS)
    classify.remove_examples(kind([0, 13]))
    expected = make_pipeline(examples=ROWS[1:13])
    assert torch.equal(classify.model.support.keys, expected.model.support.keys)


def test__remove_examples__columns_of_other_names__as_they_were_given() -> None:
    rows = [{"body": row["text"], "kind": row["label"]} for row in ROWS]
    classify = make_pipeline(examples=rows, text_column="body", label_column="kind")
    classify.remove_examples(rows[:1])
    classify.remove_examples(ROWS[1], text_column="text", label_column="label")
    assert len(classify.model.support) == len(ROWS) - 2
    with pytest.raises(TypeError, match="There is no top_k for this model"):
        classify.remove_examples(0, top_k=1)


def test__labels_alone__get_examples__as_both_at_once() -> None:
    classify = make_pipeline(examples=None, candidate_labels=list(NAMES))
    classify.add_examples(ROWS)
    assert difference(classify, make_pipeline(compose(), examples=ROWS, candidate_labels=list(NAMES))) < 1e-5
    classify.remove_examples(ROWS[:2])
    assert len(classify.model.support) == 12
    classify.remove_examples(range(12))
    assert len(classify.model.support) == 0


def test__labels_alone__first_examples_of_one_class__hints_decide_until_there_are_two(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "backbone"))
    classify = make_pipeline(model, examples=None, candidate_labels=list(NAMES))
    alone = score_all(classify, QUERIES)
    for rows in (ROWS[:1], ROWS[2:5:2]):
        classify.add_examples(rows)
        assert score_all(classify, QUERIES).equal(alone)
    assert len(classify.model.support) == 3
    assert classify.explain(QUERIES[0])["examples"] == []
    assert score_all(save_and_load(classify, tmp_path), QUERIES).equal(alone)
    classify.add_examples(ROWS[1:2])
    at_once = {"candidate_labels": list(NAMES)}
    assert difference(classify, make_pipeline(compose(), examples=[*ROWS[:5:2], ROWS[1]], **at_once)) < 1e-5
    classify.remove_examples(3)
    assert score_all(classify, QUERIES).equal(alone)
    whole = make_pipeline(compose(), examples=ROWS[:5:2], **at_once)
    assert (score_all(whole, QUERIES) - alone).abs().max() < 1e-5
    with pytest.raises(ValueError, match="at least two classes"):
        make_pipeline(compose(), examples=ROWS[:5:2], hints=None, **at_once)


def test__new_class__hints_calibrated_by_unlabeled_texts__warning_unless_given(
    all_logs: pytest.LogCaptureFixture,
) -> None:
    with all_logs.at_level(logging.WARNING):
        for more in ({}, {"unlabeled": QUERIES}):
            all_logs.clear()
            classify = make_pipeline(compose(), examples=ROWS, unlabeled=QUERIES)
            classify.add_examples(MORE, **more)
            assert ("hints were calibrated by" in all_logs.text) == (not more)
            assert QUERIES[0] not in all_logs.text


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__prompt__grows__written_anew(protocol: str) -> None:
    rows = [{"text": WORDS[i], "label": "ab"[i % 2]} for i in range(5)]
    grown = make_pipeline(compose(protocol=protocol), examples=rows[:4])
    in_order = sorted(rows[:4], key=lambda row: grown.model.support.texts.index(row["text"]))
    grown.add_examples(rows[4:])
    whole = make_pipeline(compose(protocol=protocol), examples=[*in_order, rows[4]])
    assert difference(grown, whole) < 1e-5
    grown.remove_examples(rows[4])
    assert len(grown.model.support) == 4
    grown.model.set_support(replace(grown.model.support, texts=None))
    with pytest.raises(ValueError, match="holds no texts"):
        grown.add_examples(rows[4:])


def test__hints_of_the_user__grow__as_all_at_once() -> None:
    def count(inputs: list[str], names: list[str]) -> list[list[float]]:
        return [[float(len(text) % (3 + i)) for i in range(len(names))] for text in inputs]

    grown = make_pipeline()
    grown.set_examples(ROWS, hints=count)
    grown.add_examples(MORE)
    assert difference(grown, make_pipeline(compose(), examples=[*ROWS, *MORE], hints=count)) < 1e-5
    grown.model.set_support(replace(grown.model.support, texts=None))
    with pytest.raises(ValueError, match="missing for these inputs"):
        grown.add_examples(MORE)
    grown.add_examples(MORE, hints=count)
    with pytest.raises(ValueError, match="no scores of the new classes"):
        grown.add_examples([{"text": "w1", "label": "other"}], hints=count)


@pytest.mark.parametrize(
    ("known", "new", "expected"),
    [
        (["b", "d"], "c", ("b", "c", "d")),
        ([2, 10], 3, ("2", "3", "10")),
        ([2, 10], -1, ("-1", "2", "10")),
        (["2", "10"], "3", ("10", "2", "3")),
    ],
)
def test__new_class__sorted_classes__stay_sorted(known: list, new: Any, expected: tuple[str, ...]) -> None:
    classify = make_pipeline(examples=[{"text": text, "label": known[i % 2]} for i, text in enumerate(QUERIES)])
    classify.add_examples({"text": ["w1"], "label": [new]})
    assert classify.model.support.label_names == expected == tuple(classify.model.config.id2label.values())


def test__new_class__classes_in_an_order_of_their_own__last() -> None:
    classify = make_pipeline(examples=ROWS, candidate_labels=list(NAMES[::-1]))
    classify.add_examples(MORE)
    assert classify.model.support.label_names == (*NAMES[::-1], NEW)


def test__new_class__class_label_feature__in_its_order() -> None:
    more = Dataset.from_list(MORE).cast_column("label", ClassLabel(names=[NEW, *NAMES[::-1]]))
    classify = make_pipeline(examples=ROWS)
    classify.add_examples(more)
    assert classify.model.support.label_names == (NEW, *NAMES[::-1])


def test__labels_that_do_not_fit__added__errors() -> None:
    classify = make_pipeline(examples=ROWS)
    with pytest.raises(ValueError, match="names of the classes as strings"):
        classify.add_examples([{"text": "w1", "label": 2}])
    with pytest.raises(ValueError, match="not in the support set"):
        classify.remove_examples({**ROWS[0], "label": NAMES[1]})
    with pytest.raises(ValueError, match="numbered from 0"):
        classify.remove_examples(14)
    with pytest.raises(TypeError, match="There is no candidate_labels"):
        classify.add_examples(ROWS, candidate_labels=NAMES)
    with pytest.raises(ValueError, match="classes that the support set has already"):
        classify.add_examples(ROWS, label_descriptions={NAMES[0]: "w1 w2"})
    assert len(classify.model.support) == 14
    classify.set_examples(ROWS, hints=None)
    with pytest.raises(ValueError, match="of 1 classes"):
        classify.remove_examples(ROWS[::2])
    assert len(classify.model.support) == 14
    classify.set_examples(None)
    with pytest.raises(ValueError, match="no support set yet"):
        classify.add_examples(ROWS)


def test__copies__added__logged(all_logs: pytest.LogCaptureFixture) -> None:
    classify = make_pipeline(examples=ROWS)
    with all_logs.at_level(logging.WARNING):
        classify.add_examples([ROWS[0], {**ROWS[1], "label": NAMES[0]}])
    assert "1 of 2 added examples are in the support set already" in all_logs.text
    assert "1 of 2 added examples have texts that are in the support set with another label" in all_logs.text
    assert ROWS[0]["text"] not in all_logs.text


def test__add_examples__weights_and_labels_of_the_first_ones__as_encoded_anew() -> None:
    rows = [{"text": row["text"], "label": i % 2} for i, row in enumerate(make_examples(12))]
    model = compose()
    tokenizer = build_tokenizer()
    parsed = parse_examples(rows)
    weights = [1.0 + i % 3 for i in range(12)]
    first = replace(parsed, inputs=parsed.inputs[:10], labels=parsed.labels[:10], weights=weights[:10])
    model.set_support(model.encode_support(first, tokenizer))
    model.add_examples(rows[10:], tokenizer)
    grown = model.support
    assert grown.label_kind == "integers"
    assert grown.weights.tolist() == [*weights[:10], 1.0, 1.0]
    model.remove_examples([0, 11], tokenizer)
    assert model.support.weights.tolist() == [*weights[1:10], 1.0]
    with pytest.raises(ValueError, match="The labels are strings, and those of the support set are integers"):
        model.add_examples([{"text": "w1 w2", "label": "1"}], tokenizer)
