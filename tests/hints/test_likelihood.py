"""Label likelihood: the head of each kind of language model, and scores against the logits of whole models."""

from pathlib import Path

import pytest
import torch
from helpers.builders import GROUPED, build_tokenizer, make_examples
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from transformers_tart import TartForSequenceClassification, View
from transformers_tart.backbones.vocabulary import head_of_model, read_head


# tied and of its own, with a bias, a factor, a divisor and a bound of the logits
HEADS = {
    "llama": {**GROUPED, "tie_word_embeddings": False},
    "phi": {**GROUPED, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8, "vocab_size": 99},
    "cohere": {**GROUPED, "logit_scale": 0.25, "tie_word_embeddings": True},
    "granite": {**GROUPED, "logits_scaling": 4.0, "tie_word_embeddings": True},
    "gemma3_text": {**GROUPED, "sliding_window": 8, "final_logit_softcapping": 2.0},
}
PROMPT = View("word", "w1 {text} w2", "last", -1)
DESCRIPTIONS = {"ham": "w5 w6", "spam": "w7"}
TEXTS = ["w10 w11", "w12"]


def build_whole(model_type: str) -> PreTrainedModel:
    """A random language model with its head."""
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **tokens, **HEADS[model_type]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    return model.eval()


def logits_of(model: PreTrainedModel, text: str) -> Tensor:
    """Logits (vocabulary,) at the end of the prompt, of the whole model."""
    tokens = build_tokenizer()(PROMPT.template.format(text=text), return_tensors="pt").input_ids
    with torch.no_grad():
        return model(tokens).logits[0, -1].float()


@pytest.mark.parametrize("model_type", HEADS)
def test__read_head__bias_scale_and_softcap__same_logits_as_the_model(model_type: str, tmp_path: Path) -> None:
    model, ids, tokens = build_whole(model_type), [3, 7, 40], torch.tensor([[1, 5, 9]])
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        state = model.base_model(tokens).last_hidden_state[0, -1]
        expected = model(tokens).logits[0, -1, ids]
    for own_head, name in ((None, str(tmp_path)), (head_of_model(model), None)):
        head = read_head(model.base_model, ids, own_head, name)
        if head is None:  # a tied head with a bias is only in the file
            assert name is None
            continue
        logits = head.rows @ state + head.bias
        if head.softcap is not None:
            logits = head.softcap * torch.tanh(logits / head.softcap)
        torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("model_type", HEADS)
def test__label_likelihood__labels_of_several_tokens__mean_of_the_logits_of_the_model(model_type: str) -> None:
    whole, tokenizer = build_whole(model_type), build_tokenizer()
    model = TartForSequenceClassification.from_backbone(whole, views=[PROMPT])
    options = {"hints": "label_likelihood", "label_descriptions": DESCRIPTIONS}
    prepared = model.prepare_examples(make_examples(8), tokenizer, **options)
    embedder, hints = model.embedder(), prepared.support.hints
    assert hints is not None
    assert hints.names == ("label_likelihood",)
    rows = embedder.tokenize(tokenizer, TEXTS)
    scores = hints.score(embedder.embed_rows(rows, prepared.reading))[:, 0]
    ids = [tokenizer.convert_tokens_to_ids(DESCRIPTIONS[name].split()) for name in prepared.support.label_names]
    logits = torch.stack([logits_of(whole, text) for text in TEXTS])
    expected = torch.stack([logits[:, each].mean(1) for each in ids], dim=1)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test__label_likelihood__names_without_meaning__nan_for_them_alone() -> None:
    model = TartForSequenceClassification.from_backbone(build_whole("gemma3_text"), views=[PROMPT])
    examples = make_examples(9, ("ham", "spam", "LABEL_1"))
    support = model.encode_support(examples, build_tokenizer(), hints="label_likelihood")
    scores = support.scores()
    assert scores is not None
    is_named = torch.tensor([name != "LABEL_1" for name in support.label_names])
    assert scores[..., is_named].isfinite().all()
    assert scores[..., ~is_named].isnan().all()


def test__label_likelihood__backbone_without_a_head__error_unless_auto() -> None:
    model = TartForSequenceClassification.from_backbone(build_whole("llama").base_model, views=[PROMPT])
    with pytest.raises(ValueError, match="vocabulary head"):
        model.encode_support(make_examples(8), build_tokenizer(), hints="label_likelihood")
    support = model.encode_support(make_examples(8), build_tokenizer())
    assert support.hints is not None
    assert support.hints.names == ("label_similarity",)


def test__read_head__model_in_bfloat16__default_dtype_of_other_threads_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, defaults, set_default = build_whole("cohere").bfloat16(), [], torch.set_default_dtype
    model.config.dtype = torch.bfloat16
    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (defaults.append(dtype), set_default(dtype)))
    assert read_head(model.base_model, [3, 7], None, None) is not None
    assert set(defaults) <= {torch.float32}
    assert model.config.dtype == torch.bfloat16
