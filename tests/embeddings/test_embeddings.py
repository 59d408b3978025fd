"""Protocols: batched embeddings equal those of one text at a time."""

import pytest
import torch
from helpers.builders import BACKBONES, VOCABULARY_SIZE, build_backbone, build_tokenizer, make_texts
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, T5Config, T5Model

from transformers_tart.embeddings import embed, encode_texts, pooled_hidden_states, text_encoder
from transformers_tart.embeddings.pooling import pool_spans
from transformers_tart.inputs.views import View
from transformers_tart.projection import LayerScaling


pytestmark = pytest.mark.core


TEXTS = make_texts(11, seed=3)


def early_mean(tokens: Tensor) -> Tensor:
    """Mean of (length, hidden), weighted by 1, 1/2, 1/3, ..."""
    weights = [1 / place for place in range(1, len(tokens) + 1)]
    return sum(weight * token for weight, token in zip(weights, tokens, strict=True)) / sum(weights)


POOLED = {
    "mean": lambda tokens: tokens.mean(0),
    "last": lambda tokens: tokens[-1],
    "first": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(0).values,
    "second": lambda tokens: tokens[:2][-1],
    "early_mean": lambda tokens: early_mean(tokens[1:] if len(tokens) > 1 else tokens),
}


def embed_alone(backbone: PreTrainedModel, text: str, pooling: str) -> Tensor:
    """(layers, hidden) of one text, without padding and by hand."""
    input_ids = torch.tensor([build_tokenizer()(text)["input_ids"]])
    with torch.no_grad():
        hidden_states = backbone(input_ids=input_ids, output_hidden_states=True).hidden_states
    return torch.stack([POOLED[pooling](hidden[0]) for hidden in hidden_states])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLED)
def test__encode_texts__batched__equals_one_at_a_time(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pooling: str
) -> None:
    expected = torch.stack([embed_alone(backbone, text, pooling) for text in TEXTS])
    found = encode_texts(backbone, tokenizer, TEXTS, pooling=pooling, layers="all", batch_size=4)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layers", [0, 1, -1, -2])
def test__encode_texts__layer_index__that_layer_of_all(layers: int, tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build_backbone("gpt2")
    every = encode_texts(backbone, tokenizer, TEXTS, layers="all")
    torch.testing.assert_close(encode_texts(backbone, tokenizer, TEXTS, layers=layers)[:, 0], every[:, layers])


@pytest.mark.parametrize("pooling", POOLED)
def test__pooled_hidden_states__left_padding__same(backbone: PreTrainedModel, pooling: str) -> None:
    pooled = []
    for side in ("left", "right"):
        batch = build_tokenizer(padding_side=side)(TEXTS, padding=True, return_tensors="pt")
        pooled.append(
            pooled_hidden_states(backbone, batch["input_ids"], batch["attention_mask"], pooling=pooling, layers="all")
        )
    torch.testing.assert_close(*pooled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["first", "second", "last", "max", "mean"])
def test__pool_spans__whole_row__equals_the_row_alone(backbone: PreTrainedModel, pooling: str) -> None:
    input_ids = torch.randint(4, VOCABULARY_SIZE, (1, 7))
    with torch.no_grad():
        hidden = backbone(input_ids=input_ids).last_hidden_state
    alone = pooled_hidden_states(backbone, input_ids, pooling=pooling)
    torch.testing.assert_close(pool_spans([[hidden]], [View(pooling=pooling)], [[(0, 7)]]), alone)


def test__pool_spans__early_mean__first_token_of_the_text_counts_most(backbone: PreTrainedModel) -> None:
    input_ids = torch.randint(4, VOCABULARY_SIZE, (1, 9))
    with torch.no_grad():
        hidden = backbone(input_ids=input_ids).last_hidden_state
    found = pool_spans([[hidden]], [View(pooling="early_mean")], [[(1, 9)], [(2, 5)], [(3, 4)]])
    by_hand = [early_mean(hidden[0, begin:end]) for begin, end in ((1, 9), (2, 5), (3, 4))]
    torch.testing.assert_close(found[:, 0], torch.stack(by_hand))
    torch.testing.assert_close(pooled_hidden_states(backbone, input_ids, pooling="early_mean"), found[:1])


def test__pooled_hidden_states__no_mask__all_are_tokens() -> None:
    backbone, input_ids = build_backbone("llama"), torch.randint(4, VOCABULARY_SIZE, (3, 5))
    torch.testing.assert_close(
        pooled_hidden_states(backbone, input_ids),
        pooled_hidden_states(backbone, input_ids, torch.ones_like(input_ids)),
    )


@pytest.mark.parametrize("pooling", POOLED)
def test__pooled_hidden_states__nan_at_the_padding__does_not_reach_the_embedding(pooling: str) -> None:
    backbone = build_backbone("llama")
    backbone.layers[-1].register_forward_hook(lambda *args: args[-1].index_fill(1, torch.tensor([3, 4]), torch.nan))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    pooled = pooled_hidden_states(backbone, torch.full((2, 5), 7), mask, pooling=pooling)
    assert torch.isfinite(pooled).all()


def test__pooled_hidden_states__bfloat16__pooled_in_float32(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build_backbone("llama").to(torch.bfloat16)
    assert encode_texts(backbone, tokenizer, TEXTS, layers="all").dtype == torch.float32


def test__pooled_hidden_states__gradients__never(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build_backbone("llama")
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert not encode_texts(backbone, tokenizer, TEXTS).requires_grad


def test__pooled_hidden_states__segments__only_where_the_backbone_knows_them() -> None:
    input_ids, segments = torch.full((1, 4), 7), torch.tensor([[0, 0, 1, 1]])
    for model_type, matters in (("bert", True), ("llama", False)):
        backbone = build_backbone(model_type)
        with_segments = pooled_hidden_states(backbone, input_ids, token_type_ids=segments)
        assert torch.equal(with_segments, pooled_hidden_states(backbone, input_ids)) != matters


@pytest.mark.parametrize("options", [{"layers": 3}, {"layers": -4}, {"layers": "some"}, {"pooling": "sum"}])
def test__encode_texts__invalid_option__says_what_is_allowed(
    options: dict, tokenizer: PreTrainedTokenizerFast
) -> None:
    message = (
        'hidden states 0 to 2, "late" or "all"|must be an index, a slice .*, "late" or "all"'
        if "layers" in options
        else "must be one of .'mean', 'last', 'first', 'max', 'second', .*or several joined by"
    )
    with pytest.raises(ValueError, match=message):
        encode_texts(build_backbone("llama"), tokenizer, TEXTS, **options)


@given(batch_size=st.integers(1, 12), order=st.permutations(range(len(TEXTS))))
def test__encode_texts__batch_size_and_order__follow_the_texts(batch_size: int, order: list[int]) -> None:
    backbone, tokenizer = build_backbone("gpt_neox"), build_tokenizer()
    expected = encode_texts(backbone, tokenizer, TEXTS)[torch.tensor(order)]
    found = encode_texts(backbone, tokenizer, [TEXTS[i] for i in order], batch_size=batch_size)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test__encode_texts__max_length__only_the_first_tokens_count(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build_backbone("llama")
    short = encode_texts(backbone, tokenizer, ["w1 w2 w3", "w4"])
    torch.testing.assert_close(encode_texts(backbone, tokenizer, ["w1 w2 w3 w5 w6", "w4"], max_length=3), short)


def test__encode_texts__encoder_decoder__its_encoder(tokenizer: PreTrainedTokenizerFast) -> None:
    config = T5Config(vocab_size=VOCABULARY_SIZE, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4)
    backbone = T5Model(config).eval()
    assert text_encoder(backbone) is backbone.encoder
    assert encode_texts(backbone, tokenizer, TEXTS, layers="all").shape == (len(TEXTS), 3, 16)


def test__encode_texts__progress_bar__on_stderr_when_asked(
    capsys: pytest.CaptureFixture, tokenizer: PreTrainedTokenizerFast
) -> None:
    encode_texts(build_backbone("llama"), tokenizer, TEXTS)
    assert capsys.readouterr() == ("", "")
    encode_texts(build_backbone("llama"), tokenizer, TEXTS, progress_bar=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "embedding: 100%" in shown.err


@pytest.mark.parametrize("model_type", BACKBONES)
def test__embed__every_backbone__shapes_and_order(model_type: str, tokenizer: PreTrainedTokenizerFast) -> None:
    support, query, labels = embed(build_backbone(model_type), tokenizer, TEXTS[:6], [0, 1, 0, 1, 2, 2], TEXTS[6:])
    assert (support.shape, query.shape, labels.tolist()) == ((6, 32), (5, 32), [0, 1, 0, 1, 2, 2])
    assert (support.dtype, query.dtype, labels.dtype) == (torch.float32, torch.float32, torch.int64)


def test__embed__all_layers__scaled_by_the_support(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = build_backbone("llama")
    support, query, _ = embed(backbone, tokenizer, TEXTS[:6], [0, 1] * 3, TEXTS[6:], layers="all")
    scaling = LayerScaling.fit(encode_texts(backbone, tokenizer, TEXTS[:6], layers="all"))
    torch.testing.assert_close(query, scaling.transform(encode_texts(backbone, tokenizer, TEXTS[6:], layers="all")))
    torch.testing.assert_close(support.unflatten(1, (3, 32)).square().sum(-1).mean(0), torch.ones(3))


def test__embed__what_does_not_fit__clear_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="There are 3 support_texts and 2 support_labels"):
        embed(build_backbone("llama"), tokenizer, TEXTS[:3], [0, 1], TEXTS)
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        embed(build_backbone("llama"), tokenizer, TEXTS[:2], [0, 1], TEXTS, batch_size=0)
    with pytest.raises(ValueError, match="query_texts is empty"):
        embed(build_backbone("llama"), tokenizer, TEXTS[:2], [0, 1], [])
    with pytest.raises(ValueError, match="protocol is .brook.; it must be one of"):
        embed(build_backbone("llama"), tokenizer, TEXTS[:2], [0, 1], TEXTS, protocol="brook")


def test__pooled_hidden_states__row_without_token__said() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="its attention mask is all zero"):
        pooled_hidden_states(build_backbone("llama"), torch.ones_like(mask), mask)
