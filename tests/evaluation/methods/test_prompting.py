"""Prompting: what is read once gives the scores of whole prompts read one at a time."""

import logging
from pathlib import Path

import pytest
import torch
from helpers.builders import BACKBONES, WORDS, build_tokenizer, make_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones import MINI
from transformers_tart.commands.demo import load_demo_task
from transformers_tart.evaluation import prompting as label_scores
from transformers_tart.evaluation.methods import prompting as method
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.prompting import (
    ANSWER,
    QUESTION,
    SEPARATOR,
    PromptResult,
    can_be_prompted,
    prompt_log_probs,
)
from transformers_tart.evaluation.tasks import Task


pytestmark = pytest.mark.core


NAMES = ("w1", "w2 w3", "w4 w5 w6")
CAUSAL = [name for name in BACKBONES if name != "bert"]
SMALL_MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 99}


def build_language_model(model_type: str, **overrides: object) -> PreTrainedModel:
    fields = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **BACKBONES.get(model_type, {}), **overrides}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def build_prefixing_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Characters after SentencePiece's fashion: a mark at the start of the text and for every space."""
    characters = ["<s>", "<unk>", "▁", *"\n:abcdefghijklmnopqrstuvwxyzSL0123456789"]
    vocabulary = {character: i for i, character in enumerate(characters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


def naive_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> float:
    """One whole prompt, tokenized as one text and read alone."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    whole, known = tokenizer(prompt + answer).input_ids, len(tokenizer(prompt).input_ids)
    ids = torch.tensor([start + whole])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return log_probs.gather(1, ids[0, 1:, None])[len(start) + known - 1 :].mean().item()


def naive_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    labels: list[int],
    queries: list[str],
    names: tuple[str, ...],
) -> torch.Tensor:
    shown = "".join(
        QUESTION.format(text=text) + ANSWER.format(label=names[i]) + SEPARATOR
        for text, i in zip(texts, labels, strict=True)
    )
    prompts = [shown + QUESTION.format(text=query) for query in queries]
    answers = [ANSWER.format(label=name) for name in names]
    return torch.tensor([[naive_score(model, tokenizer, prompt, answer) for answer in answers] for prompt in prompts])


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("model_type", CAUSAL)
def test__prompt_log_probs__shared_beginning__equals_whole_prompts(model_type: str, batch_size: int) -> None:
    model, texts, queries = build_language_model(model_type), make_texts(3, max_words=3), make_texts(3, 1, max_words=4)
    given = (build_tokenizer(), texts, [0, 1, 2], queries, NAMES)
    found = prompt_log_probs(model, *given, batch_size=batch_size)
    assert found.examples == 3
    torch.testing.assert_close(found.log_probs, naive_scores(model, *given), atol=1e-4, rtol=0)


@pytest.mark.parametrize("special", [{}, {"bos_token": "<s>"}], ids=["no_bos", "bos"])
def test__prompt_log_probs__tokenizer_that_marks_beginnings__equals_whole_prompts(special: dict) -> None:
    model = build_language_model("llama", max_position_embeddings=256)
    given = (build_prefixing_tokenizer(**special), ["abc d", "ef g"], [0, 1], ["hij", "k l"], ("no", "yes sir"))
    found = prompt_log_probs(model, *given)
    torch.testing.assert_close(found.log_probs, naive_scores(model, *given), atol=1e-4, rtol=0)


def test__prompt_log_probs__model_without_keys_and_values__equals_whole_prompts() -> None:
    model = build_language_model("mamba", **SMALL_MAMBA)
    given = (build_tokenizer(), make_texts(2, max_words=3), [0, 1], make_texts(3, 1, max_words=4), NAMES)
    torch.testing.assert_close(
        prompt_log_probs(model, *given).log_probs, naive_scores(model, *given), atol=1e-4, rtol=0
    )


def test__prompt_log_probs__little_memory_for_logits__same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_language_model("llama")
    given = (build_tokenizer(), make_texts(3, max_words=3), [0, 1, 2], make_texts(3, 1, max_words=4), NAMES)
    expected = prompt_log_probs(model, *given).log_probs
    monkeypatch.setattr(label_scores, "LOGITS_BYTES", 1)
    torch.testing.assert_close(prompt_log_probs(model, *given).log_probs, expected)


def test__prompt_log_probs__bfloat16__logits_that_are_not_rounded() -> None:
    model = build_language_model("llama")
    given = (build_tokenizer(), make_texts(3, max_words=3), [0, 1, 2], make_texts(3, 1, max_words=4), NAMES)
    found = prompt_log_probs(model.to(torch.bfloat16), *given).log_probs
    assert not torch.equal(found, found.bfloat16().float())


def test__prompting__both_methods__read_each_prompt_once(
    monkeypatch: pytest.MonkeyPatch, all_logs: pytest.LogCaptureFixture
) -> None:
    texts, labels = make_texts(6, max_words=3), [0, 1, 0, 1, 0, 1]
    task = Task("made", ("w1", "w2_w3"), texts, labels, make_texts(3, 1, max_words=4), [0, 1, 0])
    shown: list[tuple[list[str], list[str]]] = []

    def read(
        model: object, tokenizer: object, texts: list, labels: list, queries: list, names: list, **options: object
    ):  # type: ignore[no-untyped-def]
        shown.append((texts, names))
        return PromptResult(torch.randn(len(queries), len(names)), len(texts))

    monkeypatch.setattr(method, "prompt_log_probs", read)
    context, support = TaskContext(task, Models("mini")), Support(tuple(range(6)), seed=0)
    plain, calibrated = (METHODS[name](context, support) for name in ("prompting", "prompting_calibrated"))
    assert len(shown) == method.ORDERS
    assert context.saved[0] > 0
    assert all(names == ["w1", "w2 w3"] and sorted(own) == sorted(texts) for own, names in shown)
    assert shown[0][0] == texts != shown[1][0]
    for found in (plain, calibrated):
        torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    with all_logs.at_level(logging.WARNING):
        METHODS["prompting"](TaskContext(task, Models("mini", prompt="w9 ")), support)
    assert "in-context prompting leaves it out" in all_logs.text
    assert shown[2:] == shown[:2]


def test__write_labels__names_that_would_be_equal__as_they_are() -> None:
    assert method.write_labels(("card_not_working", "Sci/Tech", "LABEL_1")) == [
        "card not working",
        "Sci/Tech",
        "LABEL_1",
    ]
    assert method.write_labels(("not_w1", "not-w1")) == ["not_w1", "not-w1"]


@pytest.mark.slow
def test__prompt_log_probs__embedded_model_and_real_texts__equals_whole_prompts() -> None:
    model, task = AutoModelForCausalLM.from_pretrained(MINI).eval(), load_demo_task("topic")
    names = tuple(sorted(set(task.labels)))
    texts, labels = zip(*((row["text"], names.index(row["label"])) for row in task.examples[:6]), strict=True)
    given = (AutoTokenizer.from_pretrained(MINI), list(texts), list(labels), task.texts[:3], names)
    found = prompt_log_probs(model, *given)
    torch.testing.assert_close(found.log_probs, naive_scores(model, *given), atol=1e-4, rtol=0)


def test__prompt_log_probs__examples_beyond_the_context__last_ones_of_each_class() -> None:
    model, tokenizer = build_language_model("llama", max_position_embeddings=24), build_tokenizer()
    texts, labels = [f"w{i}" for i in range(10, 18)], [0, 1, 0, 1, 0, 1, 1, 1]
    found = prompt_log_probs(model, tokenizer, texts, labels, ["w9"], ["w1", "w2"])
    kept = prompt_log_probs(model, tokenizer, [texts[4], texts[7]], [0, 1], ["w9"], ["w1", "w2"])
    assert (found.examples, kept.examples) == (2, 2)
    torch.testing.assert_close(found.log_probs, kept.log_probs)


def test__prompt_log_probs__texts_beyond_the_context__their_beginnings() -> None:
    model, tokenizer = build_language_model("llama", max_position_embeddings=48), build_tokenizer()
    texts, query = [" ".join(WORDS[:30]), " ".join(WORDS[30:60])], " ".join(WORDS[20:40])
    found = prompt_log_probs(model, tokenizer, texts, [0, 1], [query, "w9"], ["w1", "w2"])
    # a query has a quarter of the context, 12, of which the prompt and its start take 6; each example has half of
    # what is left, 18, of which the prompt takes 5
    beginnings, queries = [" ".join(text.split()[:13]) for text in texts], [" ".join(query.split()[:6]), "w9"]
    assert found.examples == 2
    expected = naive_scores(model, tokenizer, beginnings, [0, 1], queries, ("w1", "w2"))
    torch.testing.assert_close(found.log_probs, expected, atol=1e-4, rtol=0)


def test__prompt_log_probs__limits_of_texts_and_prompts__shorter_texts_and_fewer_examples() -> None:
    model, tokenizer = build_language_model("llama"), build_tokenizer()
    texts, labels, queries = ["w1 w2 w3", "w4", "w5 w6", "w7"], [0, 1, 0, 1], ["w8 w9 w10", "w11"]
    found = prompt_log_probs(model, tokenizer, texts, labels, queries, ["w1", "w2"], max_length=2)
    expected = naive_scores(model, tokenizer, ["w1 w2", *texts[1:]], labels, ["w8 w9", "w11"], ("w1", "w2"))
    torch.testing.assert_close(found.log_probs, expected, atol=1e-4, rtol=0)
    assert (found.examples, prompt_log_probs(model, tokenizer, texts, labels, queries, ["w1", "w2"]).examples) == (
        4,
        4,
    )
    assert prompt_log_probs(model, tokenizer, texts, labels, queries, ["w1", "w2"], max_prompt=30).examples == 2


def test__prompt_log_probs__no_examples__prompts_of_the_queries() -> None:
    model, tokenizer = build_language_model("llama", max_position_embeddings=16), build_tokenizer()
    queries = [" ".join(WORDS[:20]), "w9", "w3"]
    found = prompt_log_probs(model, tokenizer, [], [], queries, ["w1", "w2"])
    # the first query has a quarter of the context, 4, of which the prompt and its start would take all but one
    expected = naive_scores(model, tokenizer, [], [], [WORDS[0], *queries[1:]], ("w1", "w2"))
    assert found.examples == 0
    torch.testing.assert_close(found.log_probs, expected, atol=1e-4, rtol=0)


def test__prompt_log_probs__impossible__said() -> None:
    model, tokenizer = build_language_model("llama", max_position_embeddings=16), build_tokenizer()
    with pytest.raises(ValueError, match="context of 16 tokens does not hold a query and an example of each class"):
        prompt_log_probs(model, tokenizer, ["w1", "w2"], [0, 1], [" ".join(WORDS[:9])], ["w1", "w2"])
    with pytest.raises(ValueError, match="no queries to prompt with"):
        prompt_log_probs(model, tokenizer, ["w1", "w2"], [0, 1], [], ["w1", "w2"])
    with pytest.raises(ValueError, match='label name "" adds no token'):
        prompt_log_probs(model, tokenizer, ["w1"], [0], ["w1"], ["", "w2"])


@pytest.mark.slow
def test__prompting__model_of_the_pipeline__its_backbone_with_the_head(tmp_path: Path) -> None:
    texts, labels = make_texts(8, max_words=3), [i % 3 for i in range(8)]
    task = Task("made", NAMES, texts, labels, make_texts(3, 1, max_words=4), [0, 1, 2])
    TartForSequenceClassification.from_backbone("mini", pooling="last").save_pretrained(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MINI).eval(), AutoTokenizer.from_pretrained(MINI)
    expected = torch.stack(
        [
            prompt_log_probs(
                model, tokenizer, [texts[i] for i in order], [labels[i] for i in order], task.test_texts, NAMES
            ).log_probs
            for order in method.draw_orders(6, 0)
        ]
    )
    for name in ("mini", str(tmp_path)):
        context = TaskContext(task, Models(name))
        found = METHODS["prompting"](context, Support(tuple(range(6)), seed=0))
        torch.testing.assert_close(found, expected.double().softmax(-1).mean(0), atol=1e-6, rtol=0)
        assert context.models.language_model.base_model is context.model.backbone


def test__can_be_prompted__by_the_saved_architecture() -> None:
    config = AutoConfig.for_model("llama", **BACKBONES["llama"])
    assert not can_be_prompted(config)
    for architecture, expected in (("LlamaModel", False), ("LlamaForCausalLM", True), ("BertForMaskedLM", False)):
        config.architectures = [architecture]
        assert can_be_prompted(config) == expected
