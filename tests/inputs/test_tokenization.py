"""Texts to padded batches of token ids."""

from pathlib import Path

import pytest
import torch
from helpers.builders import BACKBONES, VOCABULARY_SIZE, WORDS, build_backbone, build_tokenizer, make_examples
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast, RobertaConfig, RobertaModel, pipeline

from transformers_tart.backbones.forward import backbone_max_length, resolve_max_length
from transformers_tart.inputs.tokenization import collate, pad_right, tokenize


pytestmark = pytest.mark.core


@pytest.mark.parametrize("model_type", BACKBONES)
def test__backbone_max_length__every_backbone__what_its_positions_allow(model_type: str) -> None:
    backbone = build_backbone(model_type)
    limit = backbone_max_length(backbone)
    assert limit == (None if model_type == "bloom" else 64)
    with torch.no_grad():
        output = backbone(input_ids=torch.full((1, limit or 200), 5)).last_hidden_state
    assert torch.isfinite(output).all()


def test__backbone_max_length__positions_after_a_padding_index__are_fewer() -> None:
    config = RobertaConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=66, pad_token_id=1,
    )  # fmt: skip
    backbone = RobertaModel(config)
    limit = backbone_max_length(backbone)
    assert limit == 64
    backbone(input_ids=torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        backbone(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize(
    ("given_length", "tokenizer_length", "model_type", "expected"),
    [(None, None, "gpt2", 64), (None, 20, "gpt2", 20), (10, 20, "gpt2", 10), (90, None, "gpt2", 64)]
    + [(None, None, "bloom", None), (90, None, "bloom", 90), (None, 20, "bloom", 20)],
)
def test__resolve_max_length__limits__smallest(
    given_length: int | None, tokenizer_length: int | None, model_type: str, expected: int | None
) -> None:
    options = {} if tokenizer_length is None else {"model_max_length": tokenizer_length}
    assert resolve_max_length(build_backbone(model_type), build_tokenizer(**options), given_length) == expected


def test__tokenize__texts__ids_unpadded(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = tokenize(tokenizer, ["w0 w1", "w2"], None)
    assert [row["input_ids"] for row in rows] == [[4, 5], [6]]


@pytest.mark.parametrize("model_type", ["bert", "gpt_neox"])
def test__tokenize__folder_without_tokenizer__says_what_is_missing(model_type: str, tmp_path: Path) -> None:
    build_backbone(model_type).save_pretrained(tmp_path)
    made = AutoTokenizer.from_pretrained(tmp_path)  # which has special tokens only, and raises no error
    with pytest.raises(ValueError, match=r"special tokens and no other.*lacks the files.*tokenizer\.save_pretrained"):
        tokenize(made, ["w0 w1", "w2"], None)
    with pytest.raises(ValueError, match="special tokens and no other"):
        pipeline("tart-classification", model=str(tmp_path), examples=make_examples())


def test__tokenize__long_text__truncated_and_said_once(
    tokenizer: PreTrainedTokenizerFast, all_logs: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        rows = tokenize(tokenizer, ["w0 " * 50, "w1"], 7)
        assert [len(row["input_ids"]) for row in rows] == [7, 1]
    assert all_logs.messages == ["Some texts are longer than 7 tokens; they are truncated."]


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test__tokenize__no_token_at_all__one_neutral_token(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    row = tokenize(tokenizer, [text], None)[0]
    assert len(row["input_ids"]) == 1
    assert {len(values) for values in row.values()} == {1}
    assert row["input_ids"][0] in tokenizer.all_special_ids


@pytest.mark.parametrize("missing", [{"pad_token": None}, {"bos_token": None}, {"eos_token": None, "pad_token": None}])
def test__tokenize__no_token_and_special_tokens_missing__still_one_token(missing: dict) -> None:
    tokenizer = build_tokenizer(**missing)
    assert [len(row["input_ids"]) for row in tokenize(tokenizer, ["", "w1 w2"], None)] == [1, 2]


def test__tokenize__pairs_among_texts__each_as_if_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["w0", ("w1", "w2 w3"), "w4 w5", ("w6", "w7")]
    alone = [tokenize(tokenizer, [text], None)[0] for text in texts]
    assert tokenize(tokenizer, texts, None) == alone
    assert alone[1]["input_ids"] == [5, 6, 7]


def test__collate__no_pad_token__pads_with_zero_and_masks() -> None:
    batch = collate([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], None)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test__collate__segments__are_padded_with_zero() -> None:
    rows = [{"input_ids": [5, 6], "token_type_ids": [0, 1]}, {"input_ids": [7], "token_type_ids": [1]}]
    batch = collate(rows, 9)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 9]]
    assert batch["token_type_ids"].tolist() == [[0, 1], [1, 0]]


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), min_size=1, max_size=5))
def test__pad_right__either_padding_side__same_batch(words: list[list[str]]) -> None:
    texts = [" ".join(text) for text in words]
    left, right = (
        build_tokenizer(padding_side=side)(texts, padding=True, return_tensors="pt") for side in ("left", "right")
    )
    names = ("input_ids", "attention_mask")
    moved = pad_right({name: left[name] for name in names})
    kept = pad_right({name: right[name] for name in names})
    assert all(torch.equal(moved[name], right[name]) and torch.equal(kept[name], right[name]) for name in names)
