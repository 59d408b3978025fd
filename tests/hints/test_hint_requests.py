"""Label hints of requests: unlabeled texts, descriptions, media, no examples, and files of before hints."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset
from helpers.builders import GROUPED, build_backbone, build_reasoner, build_tokenizer, make_examples, make_texts
from helpers.media_backbones import compose_media, make_media, make_media_examples, processor_of
from transformers import AutoConfig, AutoModelForCausalLM

from transformers_tart import SupportSet, TartForSequenceClassification, TartReasoner, View
from transformers_tart.hints.requests import MOST_UNLABELED, WITHOUT_CONTENT, parse_request


STORED = Path(__file__).parents[1] / "data" / "version_0.1"
EXAMPLES, QUERIES = make_examples(8), make_texts(3, seed=5)
VIEWS = ["sentence", View("word", "w1 {text} w2", "last", -1)]


def build(**options: Any) -> TartForSequenceClassification:
    return TartForSequenceClassification.from_backbone(build_backbone("llama"), **options)


def build_whole_model() -> Any:
    """A random language model with a head of its own."""
    config = AutoConfig.for_model("llama", **GROUPED, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def word_counts(inputs: list, names: list) -> list:
    """Score the first class by the number of words."""
    return [[float(len(text.split())), *[0.0] * (len(names) - 1)] for text in inputs]


def sizes(inputs: list, names: list) -> list:
    """Score the first class by the width of images, or the length of sounds."""
    values = [float(item.size[0] if hasattr(item, "convert") else len(item)) for item in inputs]
    return [[value, *[0.0] * (len(names) - 1)] for value in values]


def answer(model: Any, prepared: Any, texts: list, tokenizer: Any) -> torch.Tensor:
    embedder = model.embedder()
    embeddings = embedder.embed_rows(embedder.tokenize(tokenizer, texts), prepared.reading)
    return model.answer(embeddings, prepared, prepared.score_given(texts))


def test__unlabeled__texts__calibrate_and_are_not_stored(tmp_path: Path) -> None:
    model, unlabeled = build(), ["w90 w91", *make_texts(4, seed=9)]
    without = model.encode_support(EXAMPLES, build_tokenizer())
    support = model.encode_support(EXAMPLES, build_tokenizer(), unlabeled=unlabeled, keep_texts=True)
    assert without.hints is not None
    assert support.hints is not None
    assert len(without.hints.calibration) == len(WITHOUT_CONTENT)
    assert len(support.hints.calibration) == len(WITHOUT_CONTENT) + len(unlabeled)
    torch.testing.assert_close(support.hints.calibration[: len(WITHOUT_CONTENT)], without.hints.calibration)
    answers = [answer(model, model.prepare_support(each), QUERIES, build_tokenizer()) for each in (without, support)]
    assert not torch.allclose(*answers)
    support.save(tmp_path / "s.safetensors", include_texts=True)
    assert b"w90 w91" not in (tmp_path / "s.safetensors").read_bytes()


@pytest.mark.parametrize("column", ["text", "body"])
def test__unlabeled__table__its_texts_and_not_its_columns(column: str, tmp_path: Path) -> None:
    model, texts, given = build(), make_texts(4, seed=9), {} if column == "text" else {"text_column": column}
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({column: text, "id": 1}) + "\n" for text in texts))
    rows = [{column: row["text"], "label": row["label"]} for row in EXAMPLES]
    expected = model.encode_support(rows, build_tokenizer(), unlabeled=texts, **given)
    for table in (pd.DataFrame({"id": 1, column: texts}), Dataset.from_dict({column: texts, "id": texts}), path):
        found = model.encode_support(rows, build_tokenizer(), unlabeled=table, **given)
        assert torch.equal(found.hints.calibration, expected.hints.calibration)
    model.set_support(expected)
    model.add_examples(
        [{column: "w1", "label": "w50 w51"}], build_tokenizer(), unlabeled=pd.DataFrame({column: texts}), **given
    )
    assert model.support.hints.calibration.shape[::2] == (len(WITHOUT_CONTENT) + 4, 3)


def test__unlabeled__many_texts__drawn_by_the_seed() -> None:
    texts = [f"w{i}" for i in range(MOST_UNLABELED + 50)]
    drawn = [parse_request("auto", ("ham", "spam"), "{}", None, texts, seed).unlabeled for seed in (0, 0, 1)]
    assert len(set(drawn[0])) == MOST_UNLABELED
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("unlabeled", ["w1 w2", {"text": "w1"}, [3], 3])
def test__unlabeled__no_list_of_texts__type_error(unlabeled: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="[Uu]nlabeled"):
        parse_request("auto", ("ham", "spam"), "{}", None, unlabeled)


def test__label_descriptions__of_one_class__take_the_place_of_its_name() -> None:
    model, tokenizer = build(), build_tokenizer()
    named, described, other = (
        model.encode_support(EXAMPLES, tokenizer, hints="label_similarity", label_descriptions=each)
        for each in (None, {"spam": "w5 w6"}, {"spam": "w5 w6", "ham": "w7"})
    )
    assert named.hints is not None
    assert described.hints is not None
    assert other.hints is not None
    assert [each.hints.num_described for each in (named, described, other)] == [0, 1, 2]
    for place, name in enumerate(named.label_names):
        scores = [each.scores()[..., place] for each in (named, described, other)]
        assert torch.allclose(scores[0], scores[1], atol=1e-5) == (name == "ham")
        assert torch.allclose(scores[1], scores[2], atol=1e-5) == (name == "spam")


def test__label_descriptions__of_integer_labels__by_integers_or_names() -> None:
    requests = [parse_request("auto", ("0", "1"), "{}", each, None) for each in ({0: "w1"}, {"0": "w1"})]
    assert requests[0].descriptions == requests[1].descriptions == {"0": "w1"}


@pytest.mark.parametrize(
    ("descriptions", "error"), [({"eggs": "w1"}, ValueError), ({"ham": " "}, ValueError), ({"ham": 3}, TypeError)]
)
def test__label_descriptions__bad__error_names_the_class(descriptions: dict, error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(descriptions))):
        build().encode_support(EXAMPLES, build_tokenizer(), label_descriptions=descriptions)


@pytest.mark.parametrize(("name", "modality"), [("vit", "image"), ("wav2vec2", "audio")])
@pytest.mark.parametrize("has_examples", [True, False])
def test__media__hint_of_the_user__with_and_without_examples(name: str, modality: str, has_examples: bool) -> None:
    model, processor, items = compose_media(name), processor_of(name), make_media(modality, 3, seed=3)
    examples = make_media_examples(modality, 8) if has_examples else None
    labels = None if has_examples else ["red", "blue"]
    options = {"hints": {"size": sizes}, "candidate_labels": labels}
    prepared = model.prepare_examples(examples, processor, **options)
    assert prepared.support.hints is not None
    assert prepared.support.hints.names == ("size",)
    assert len(prepared.support) == (8 if has_examples else 0)
    queries = (
        prepared.support.embeddings[:3] if has_examples else torch.zeros(3, *prepared.support.embeddings.shape[1:])
    )
    logits = model.answer(queries, prepared, prepared.score_given(items))
    assert logits.shape == (3, prepared.support.num_labels)
    assert logits.isfinite().all()
    with pytest.raises(ValueError, match="size"):
        model.answer(queries, prepared)
    with pytest.raises(ValueError, match="are for texts"):
        model.prepare_examples(examples, processor, hints="label_similarity", candidate_labels=labels)


@pytest.mark.parametrize("count", [0, 8])
def test__every_hint__saved_and_loaded__same_answers(count: int, tmp_path: Path) -> None:
    whole = build_whole_model()
    model, tokenizer = TartForSequenceClassification.from_backbone(whole, views=VIEWS), build_tokenizer()
    examples = make_examples(count) if count else None
    labels = None if count else ["ham", "spam", "eggs"]
    hints = ["auto", {"words": word_counts}]
    prepared = model.prepare_examples(examples, tokenizer, hints=hints, candidate_labels=labels, unlabeled=QUERIES)
    assert prepared.support.hint_facts() is not None
    assert prepared.support.hints.names == ("label_similarity", "label_likelihood", "words")
    expected = answer(model, prepared, QUERIES, tokenizer)
    model.set_support(prepared.support)
    model.save_pretrained(tmp_path, include_backbone=True)
    loaded = TartForSequenceClassification.from_pretrained(tmp_path)
    again = loaded.prepare_support()
    with pytest.raises(ValueError, match="words"):
        answer(loaded, again, QUERIES, tokenizer)
    embedder = loaded.embedder()
    embeddings = embedder.embed_rows(embedder.tokenize(tokenizer, QUERIES), again.reading)
    found = loaded.answer(embeddings, again, again.score_given(QUERIES, {"words": word_counts}))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test__no_examples__other_dtypes__close_answers(dtype: torch.dtype) -> None:
    model, tokenizer = build(), build_tokenizer()
    prepared = model.prepare_examples(None, tokenizer, candidate_labels=["ham", "spam"])
    expected = answer(model, prepared, QUERIES, tokenizer).softmax(-1)
    model.to(dtype)
    changed = model.prepare_examples(None, tokenizer, candidate_labels=["ham", "spam"])
    assert changed.support.embeddings.shape[0] == 0
    found = answer(model, changed, QUERIES, tokenizer).softmax(-1)
    torch.testing.assert_close(found.float(), expected, atol=5e-2, rtol=0)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=[pytest.mark.device, pytest.mark.skipif("not torch.cuda.is_available()")])],
)
def test__no_examples__moved__same_answers(device: str) -> None:
    model, tokenizer = build(), build_tokenizer()
    support = model.encode_support(None, tokenizer, candidate_labels=["ham", "spam"])
    expected = answer(model, model.prepare_support(support), QUERIES, tokenizer)
    model.to(device)
    moved = support.to(device)
    assert moved.hints is not None
    assert moved.hints.calibration.device.type == device
    found = answer(model, model.prepare_support(moved), QUERIES, tokenizer)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["text_stream", "text_vanilla", "image"])
def test__support_set__file_of_version_0_1__no_hints(name: str, tmp_path: Path) -> None:
    support = SupportSet.load(STORED / name / "support.safetensors")
    assert (support.hints, support.given_hints, support.scores(), support.hint_facts()) == (None, None, None, None)
    support.save(tmp_path / "s.safetensors")
    assert b"hint" not in (tmp_path / "s.safetensors").read_bytes()[:4096]


@pytest.mark.parametrize("reasoner", ["gpt2", "version_0.1"])
def test__reasoner_without_weights_for_hints__auto__none_but_an_error_by_name(reasoner: str) -> None:
    given = build_reasoner("gpt2") if reasoner == "gpt2" else TartReasoner.from_pretrained(STORED / "reasoner")
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), given, views=["mean"])
    assert model.encode_support(EXAMPLES, build_tokenizer()).hints is None
    with pytest.raises(ValueError, match="no weights for label hints"):
        model.prepare_examples(EXAMPLES, build_tokenizer(), hints="label_similarity")
    with pytest.raises(ValueError, match="no weights for label hints"):
        model.prepare_examples(None, build_tokenizer(), candidate_labels=["ham", "spam"])
