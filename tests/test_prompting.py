"""Prompting: what is read once gives the scores of whole prompts read one at a time."""

import logging

import pytest
import torch
from conftest import BACKBONES, WORDS, build_tokenizer, make_texts
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from transformers_tart.evaluation.prompting import ANSWER, QUESTION, SEPARATOR, can_be_prompted, prompt_log_probs


NAMES = ("w1", "w2 w3", "w4 w5 w6")
CAUSAL = [name for name in BACKBONES if name != "bert"]


def build_language_model(model_type: str, **overrides: object) -> PreTrainedModel:
    fields = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **BACKBONES[model_type], **overrides}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def naive_score(model: PreTrainedModel, prompt: str, answer: str) -> float:
    """One whole prompt, read alone."""
    tokenizer = build_tokenizer()
    start = [1, *tokenizer(prompt).input_ids]
    ids = torch.tensor([start + tokenizer(answer).input_ids])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return log_probs.gather(1, ids[0, 1:, None])[len(start) - 1 :].mean().item()


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("model_type", CAUSAL)
def test__prompt_log_probs__shared_prefix__equals_whole_prompts(model_type: str, batch_size: int) -> None:
    model, texts, queries = build_language_model(model_type), make_texts(3, max_words=3), make_texts(3, 1, max_words=4)
    labels = [0, 1, 2]
    scores = prompt_log_probs(model, build_tokenizer(), texts, labels, queries, NAMES, batch_size=batch_size)
    shown = "".join(
        QUESTION.format(text=text) + ANSWER.format(label=NAMES[i]) + SEPARATOR
        for text, i in zip(texts, labels, strict=True)
    )
    expected = [
        [naive_score(model, shown + QUESTION.format(text=query), ANSWER.format(label=name)) for name in NAMES]
        for query in queries
    ]
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=0)


def test__prompt_log_probs__examples_beyond_the_context__last_ones_of_each_class(
    all_logs: pytest.LogCaptureFixture,
) -> None:
    model, tokenizer = build_language_model("llama", max_position_embeddings=24), build_tokenizer()
    texts, labels = [f"w{i}" for i in range(10, 18)], [0, 1, 0, 1, 0, 1, 1, 1]
    all_logs.set_level(logging.WARNING)
    scores = prompt_log_probs(model, tokenizer, texts, labels, ["w9"], ["w1", "w2"])
    kept = prompt_log_probs(model, tokenizer, [texts[4], texts[7]], [0, 1], ["w9"], ["w1", "w2"])
    assert "6 of 8 examples do not fit" in all_logs.text
    torch.testing.assert_close(scores, kept)


def test__prompt_log_probs__no_room_for_examples__said() -> None:
    model = build_language_model("llama", max_position_embeddings=16)
    with pytest.raises(ValueError, match="too few for one of each class"):
        prompt_log_probs(model, build_tokenizer(), ["w1", "w2"], [0, 1], [" ".join(WORDS[:9])], ["w1", "w2"])


def test__can_be_prompted__by_the_saved_architecture() -> None:
    config = AutoConfig.for_model("llama", **BACKBONES["llama"])
    assert not can_be_prompted(config)
    config.architectures = ["LlamaModel"]
    assert not can_be_prompted(config)
    config.architectures = ["LlamaForCausalLM"]
    assert can_be_prompted(config)
    config.architectures = ["BertForMaskedLM"]
    assert not can_be_prompted(config)
