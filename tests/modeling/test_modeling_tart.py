"""The composed classifier: wrapping leaves the backbone as it is, and the support set is read once."""

import dataclasses
from dataclasses import replace

import pytest
import torch
from helpers.builders import (
    BACKBONES,
    VOCABULARY_SIZE,
    build_backbone,
    build_reasoner,
    build_tokenizer,
    compose,
    make_examples,
    make_texts,
    shared_reasoner,
)
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from transformers_tart import SupportSet, TartConfig, TartForSequenceClassification, TartReasoner, View


pytestmark = pytest.mark.core


class LowRank(nn.Module):
    """A linear layer with a low-rank addition, as adapters make them."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.linear = linear
        self.down, self.up = (
            nn.Linear(a, b, bias=False) for a, b in ((linear.in_features, 2), (2, linear.out_features))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.down(x))


def draw_batch(rows: int = 5, length: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(4, VOCABULARY_SIZE, (rows, length), generator=generator)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def encode(model: TartForSequenceClassification, **options: object) -> SupportSet:
    return model.encode_support(make_examples(**options), build_tokenizer())


def last_hidden_state(backbone: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return backbone(**batch).last_hidden_state


def test__from_backbone__backbone__keeps_its_outputs_and_config(backbone: PreTrainedModel) -> None:
    batch = draw_batch()
    before, config = last_hidden_state(backbone, batch), backbone.config.to_dict()
    attention = backbone.config._attn_implementation
    model = TartForSequenceClassification.from_backbone(backbone, shared_reasoner())
    model(**batch, support=encode(model))
    assert model.backbone is backbone
    assert torch.equal(last_hidden_state(backbone, batch), before)
    assert backbone.config.to_dict() == config
    assert backbone.config._attn_implementation == attention


@pytest.mark.parametrize("model_type", [name for name in BACKBONES if name != "bert"])
def test__from_backbone__causal_backbone__stays_causal(model_type: str) -> None:
    model, batch = compose(model_type), draw_batch()
    before = last_hidden_state(model.backbone, batch)
    batch["input_ids"][:, -1] = 5
    after = last_hidden_state(model.backbone, batch)
    torch.testing.assert_close(after[:, :-1], before[:, :-1], atol=1e-5, rtol=1e-5)


def test__train__backbone__stays_in_evaluation_mode(backbone: PreTrainedModel) -> None:
    model = TartForSequenceClassification.from_backbone(backbone, build_reasoner())
    assert not any(module.training for module in model.modules())
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    assert all(module.training for module in model.reasoner.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("unfrozen", [False, True])
def test__backward__backbone__never_gets_gradients(backbone: PreTrainedModel, unfrozen: bool) -> None:
    model = TartForSequenceClassification.from_backbone(backbone, build_reasoner()).train()
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    model.backbone.requires_grad_(unfrozen)
    model(**draw_batch(), support=encode(model), labels=torch.tensor([0, 1, 0, 1, 1])).loss.backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(parameter.grad is not None for parameter in model.reasoner.parameters())


@pytest.mark.parametrize("through", ["from_backbone", "constructor"])
def test__composition__layer_added_to_the_backbone__keeps_its_weights(through: str) -> None:
    backbone, batch = build_backbone("llama"), draw_batch()
    attention = backbone.layers[0].self_attn
    attention.q_proj = LowRank(attention.q_proj)
    weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    before = last_hidden_state(backbone, batch)
    if through == "from_backbone":
        model = TartForSequenceClassification.from_backbone(backbone, shared_reasoner())
    else:
        config = TartConfig(text_config=backbone.config.to_dict(), reasoner_config=shared_reasoner().config.to_dict())
        model = TartForSequenceClassification(config, backbone, shared_reasoner())
    found = model.backbone.state_dict()
    assert {"layers.0.self_attn.q_proj.up.weight", "layers.0.self_attn.q_proj.down.weight"} <= found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert torch.equal(last_hidden_state(model.backbone, batch), before)


def test__composition__reasoner__keeps_its_weights() -> None:
    reasoner = build_reasoner()
    weights = {name: tensor.clone() for name, tensor in reasoner.state_dict().items()}
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), reasoner)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.reasoner.state_dict().items())


def test__from_backbone__model_with_a_head__the_model_below() -> None:
    head = LlamaForCausalLM(build_backbone("llama").config)
    assert TartForSequenceClassification.from_backbone(head).backbone is head.model


@pytest.mark.parametrize(("reasoner", "layers"), [("kernel", "all"), ("gpt2", -1)])
def test__from_backbone__layers_not_given__suit_the_reasoner(reasoner: str, layers: int | str) -> None:
    assert compose(reasoner=reasoner, pooling="mean").config.views[0].layers == layers
    assert compose(reasoner=reasoner, layers=1).config.views[0].layers == 1


def test__from_backbone__options__reach_the_config() -> None:
    config = compose(pooling="last", max_length=7).config
    (view,) = config.views
    assert (view.pooling, config.max_length, config.protocol) == ("last", 7, "stream")


def test__from_backbone__loaded_model_with_revision__noted() -> None:
    model = TartForSequenceClassification.from_backbone(build_backbone("llama"), shared_reasoner(), revision="v1")
    assert model.config.base_model_revision == "v1"


def test__init__config_without_backbone__says_what_to_give() -> None:
    with pytest.raises(ValueError, match="give text_config, or compose one with from_backbone"):
        TartForSequenceClassification(TartConfig())


@pytest.mark.parametrize("arguments", [{"device_map": "cpu"}, {"dtype": torch.float32}])
def test__from_backbone__loaded_model_with_loading_arguments__clear_error(arguments: dict) -> None:
    with pytest.raises(ValueError, match="loaded already, so .* cannot be applied; pass its name instead"):
        TartForSequenceClassification.from_backbone(build_backbone("llama"), **arguments)


@pytest.mark.parametrize("other", [compose, build_reasoner])
def test__from_backbone__model_or_reasoner_of_this_package__says_what_to_do(other: object) -> None:
    with pytest.raises(ValueError, match="not a backbone: load a model with from_pretrained, or"):
        TartForSequenceClassification.from_backbone(other())


@pytest.mark.parametrize("model_type", BACKBONES)
def test__auto_model__from_config__random_and_working(model_type: str) -> None:
    text_config = AutoConfig.for_model(model_type, pad_token_id=0, **BACKBONES[model_type])
    model = AutoModel.from_config(TartConfig(text_config=text_config.to_dict())).eval()
    assert isinstance(model, TartForSequenceClassification)
    assert isinstance(model.reasoner, TartReasoner)
    assert torch.isfinite(model(**draw_batch(), support=encode(model)).logits).all()


def test__forward__logits__float32_log_probabilities_of_each_class() -> None:
    model = compose()
    logits = model(**draw_batch(), support=encode(model, labels=("a", "b", "c"))).logits
    assert (logits.shape, logits.dtype) == ((5, 3), torch.float32)
    assert torch.isfinite(logits).all()


def test__forward__labels__cross_entropy() -> None:
    model, labels = compose(), torch.tensor([0, 1, 0, 1, 1])
    output = model(**draw_batch(), support=encode(model), labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    assert isinstance(model(**draw_batch(), support=encode(model), return_dict=False), tuple)


def test__forward__no_support_set__says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"no support set: pass support=model.encode_support.*or examples="):
        compose()(**draw_batch())


def test__forward__support_given__wins_over_the_stored_one_and_leaves_it() -> None:
    model, batch = compose(), draw_batch()
    stored, other = encode(model), encode(model, seed=1)
    expected = model(**batch, support=other).logits
    model.set_support(stored)
    assert torch.equal(model(**batch, support=other).logits, expected)
    assert model.support is stored
    assert not torch.equal(model(**batch).logits, expected)


def test__prepare_support__stored_support__is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = compose(), []
    first, second = encode(model), encode(model, seed=1)  # encoding reads them too, to compare predictions
    original = model.reasoner.prepare
    monkeypatch.setattr(model.reasoner, "prepare", lambda *args, **more: calls.append(1) or original(*args, **more))
    model.set_support(first)
    for _ in range(3):
        model(**draw_batch())
    assert len(calls) == 1
    model.set_support(second)
    model(**draw_batch())
    assert len(calls) == 2


def test__prepare_support__result__can_be_passed_instead() -> None:
    model, batch = compose(), draw_batch()
    support = encode(model)
    prepared = model.prepare_support(support)
    assert model.prepare_support(prepared) is prepared
    assert torch.equal(model(**batch, support=prepared).logits, model(**batch, support=support).logits)


def test__set_support__label_names__reach_the_config() -> None:
    model = compose()
    model.set_support(encode(model, labels=("a", "b", "c")))
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert model.config.num_labels == 3
    model.set_support(None)
    with pytest.raises(ValueError, match="no support set"):
        model(**draw_batch())


def test__copy_task__copy_grows__original_keeps_its_answers() -> None:
    model, tokenizer, batch = compose(), build_tokenizer(), draw_batch()
    model.set_support(encode(model))
    model.train()
    before, names = model(**batch).logits, dict(model.config.id2label)
    copied = model.copy_task()
    copied.card_facts.license = "mit"
    assert model.card_facts.license is None
    assert (copied.backbone, copied.reasoner) == (model.backbone, model.reasoner)
    assert copied.training
    assert model.reasoner.training
    assert torch.equal(copied(**batch).logits, before)
    copied.add_examples([{"text": "w1 w2", "label": "new"}], tokenizer)
    assert copied(**batch).logits.shape[1] == 3
    assert torch.equal(model(**batch).logits, before)
    assert dict(model.config.id2label) == names
    model.set_support(None)
    assert len(copied.support) == 13


def test__encode_support__texts__kept_only_when_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    model, examples = compose(), make_examples()
    assert model.encode_support(examples, tokenizer).texts is None
    kept = model.encode_support(examples, tokenizer, keep_texts=True)
    assert kept.texts == tuple(row["text"] for row in examples)


@pytest.mark.parametrize("max_length", [None, 7, 1000])
@pytest.mark.parametrize("side", ["left", "right"])
def test__forward__texts_longer_than_the_backbone_takes__their_end_is_cut(
    max_length: int | None, side: str, all_logs: pytest.LogCaptureFixture
) -> None:
    model = compose("gpt2", views="plain", max_length=max_length)
    limit = min(max_length or 64, 64)
    words = make_texts(1, max_words=200, seed=2)[0].split() * 30
    batch = build_tokenizer(padding_side=side)([" ".join(words), "w1 w2"], padding=True, return_tensors="pt")
    cut = build_tokenizer()([" ".join(words[:limit]), "w1 w2"], padding=True, return_tensors="pt")
    support = encode(model)
    found = model(batch["input_ids"], batch["attention_mask"], support=support).logits
    expected = model(cut["input_ids"], cut["attention_mask"], support=support).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert f"Some texts are longer than {limit} tokens; they are truncated." in all_logs.messages


@pytest.mark.parametrize("flat", [False, True])
def test__forward__support_of_another_width__names_both(flat: bool) -> None:
    model = compose(pooling="mean")
    embeddings = torch.randn(4, 24) if flat else torch.randn(4, 3, 24)
    support = SupportSet(embeddings, torch.tensor([0, 1, 0, 1]), ("a", "b"))
    with pytest.raises(
        ValueError, match=r"24\) \(layers, hidden\), the backbone gives \(3, 32\): it was made with another"
    ):
        model(**draw_batch(), support=support)


def test__forward__support_of_one_layer__may_be_flat() -> None:
    model, batch = compose(layers=-1), draw_batch()
    support = encode(model)
    flat = replace(support, embeddings=support.embeddings[:, 0])
    assert torch.equal(model(**batch, support=flat).logits, model(**batch, support=support).logits)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test__forward__broken_backbone__names_it_and_the_dtype(value: float) -> None:
    model = compose()
    support = dataclasses.replace(encode(model), digest=None)  # which would tell that the weights are others
    model.backbone.norm.weight.data[3] = value
    with pytest.raises(ValueError, match="backbone gives NaN or infinite embeddings.*dtype=torch.float32"):
        model(**draw_batch(), support=support)
    with pytest.raises(ValueError, match="support embeddings hold NaN or infinite values.*dtype=torch.float32"):
        encode(model)


def test__encode_support__constant_embeddings__says_so() -> None:
    model = compose(pooling="mean")
    model.backbone.embed_tokens.weight.data[:] = 1.0
    with pytest.raises(ValueError, match="All support embeddings are equal, so nothing can be learned"):
        model(**draw_batch(), support=encode(model))


def test__encode_support__constant_embeddings_of_a_view__names_it() -> None:
    model = compose(views=[View(pooling="first", layers=0), View(pooling="mean")])
    examples = [{**row, "text": f"w1 {row['text']}"} for row in make_examples()]
    with pytest.raises(ValueError, match="All support embeddings of view 1 of 2 are equal.*leave this view out"):
        model(**draw_batch(), support=model.encode_support(examples, build_tokenizer()))
