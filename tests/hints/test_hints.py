"""Label hints: texts of labels, scores against those of whole models, requests, files and models with hints."""

from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_examples
from transformers import LlamaConfig, LlamaForCausalLM

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.backbones.vocabulary import head_of_model, read_head
from transformers_tart.hints import LabelHints, readable
from transformers_tart.hints.requests import parse_request


EXAMPLES = make_examples(8)


@pytest.mark.parametrize(
    "name", ["0", "-1", "3.5", "LABEL_1", "class_a", "class 0", "c3", "A", "__label__2", "ClassB", "ii"]
)
def test__readable__names_without_meaning__none(name: str) -> None:
    assert readable(name) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [("card_not_working", "card not working"), ("Sci/Tech", "Sci/Tech"), ("CardNotWorking", "Card Not Working")]
    + [("comp.sys.mac", "comp sys mac"), ("no", "no"), ("cat", "cat"), ("iPhone", "iPhone"), ("5 stars", "5 stars")],
)
def test__readable__names_with_meaning__words(name: str, text: str) -> None:
    assert readable(name) == text


def build_language_model(tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, tie_word_embeddings=tied, max_position_embeddings=64, **sizes)
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", ["1MB", "8KB"])
def test__read_head__files__same_logits_as_the_model(tied: bool, shard: str, tmp_path: Path) -> None:
    model = build_language_model(tied)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    ids, tokens = [3, 7, 40], torch.tensor([[1, 5, 9]])
    found = [
        read_head(model.model, ids, None, str(tmp_path)),
        read_head(model.model, ids, head_of_model(model), None),
    ]
    with torch.no_grad():
        state, logits = model.model(tokens).last_hidden_state[0, -1], model(tokens).logits[0, -1, ids]
    for head in found:
        assert head is not None
        torch.testing.assert_close(head.rows @ state + head.bias, logits)


def test__parse_request__unknown_name__error_lists_names() -> None:
    with pytest.raises(ValueError, match="label_likelihood"):
        parse_request("similarity", ("ham", "spam"), "{}")


def test__hints__of_user__score_and_survive_the_file(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(build_backbone("gpt2"))

    def lengths(inputs: list, names: list) -> list:
        return [[float(len(text)), 0.0] for text in inputs]

    prepared = model.prepare_examples(EXAMPLES, build_tokenizer(), hints={"length": lengths})
    support = prepared.support
    assert support.hints is not None
    assert support.hints.names == ("length",)
    support.save(tmp_path / "s.safetensors")
    loaded = SupportSet.load(tmp_path / "s.safetensors")
    assert loaded.given_hints is not None
    assert torch.equal(loaded.given_hints, support.given_hints)
    queries = support.embeddings[:2]
    with pytest.raises(ValueError, match="length"):
        model.answer(queries, prepared)
    given = prepared.score_given(["a", "bb"])
    assert model.answer(queries, prepared, given).shape == (2, 2)


def test__candidate_labels__no_examples__answers_and_survives_the_file(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(build_backbone("gpt2"))
    support = model.encode_support(None, build_tokenizer(), candidate_labels=["spam", "ham"])
    assert len(support) == 0
    assert isinstance(support.hints, LabelHints)
    support.save(tmp_path / "s.safetensors")
    loaded = SupportSet.load(tmp_path / "s.safetensors")
    inputs = build_tokenizer()(["win now", "see you"], return_tensors="pt", padding=True)
    logits = model(**inputs, support=support).logits
    assert torch.isfinite(logits).all()
    assert torch.equal(model(**inputs, support=loaded).logits, logits)


def test__hints__names_without_meaning__none() -> None:
    model = TartForSequenceClassification.from_backbone(build_backbone("gpt2"))
    rows = [{**row, "label": {"spam": 1, "ham": 0}[row["label"]]} for row in EXAMPLES]
    assert model.encode_support(rows, build_tokenizer()).hints is None
    described = {"0": "chat", "1": "advertising"}
    assert model.encode_support(rows, build_tokenizer(), label_descriptions=described).hints is not None
    with pytest.raises(ValueError, match="label_descriptions"):
        model.encode_support(rows, build_tokenizer(), hints="label_similarity")
