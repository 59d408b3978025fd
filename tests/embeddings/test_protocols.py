"""Composed models that read queries after a prompt: pipeline, saving, cache."""

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers.builders import (
    build_backbone,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    save_backbone,
    score_all,
    shared_reasoner,
)
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, pipeline

from transformers_tart import SupportSet, TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.errors import CorruptFileError
from transformers_tart.inputs.views import View


TEXTS = make_texts(23, seed=4, max_words=9)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def build(protocol: str, folder: Path | None = None, **options: object) -> TartClassificationPipeline:
    """A fitted pipeline of a protocol; of a saved backbone where a folder is given."""
    backbone: object = build_backbone("llama", max_position_embeddings=256)
    if folder is not None:
        backbone = save_backbone(folder, max_position_embeddings=256)
    model = TartForSequenceClassification.from_backbone(
        backbone, copy.deepcopy(shared_reasoner()), protocol=protocol, **options
    )
    return make_pipeline(model)


@pytest.fixture(params=["vanilla", "loo"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
def test__pipeline__any_batch_size_order_and_company__same_scores(protocol: str) -> None:
    classify = build(protocol)
    expected = score_all(classify, TEXTS)
    assert expected.std(0).min() > 1e-3
    for batch_size in (1, 2, 7):
        torch.testing.assert_close(score_all(classify, TEXTS, batch_size=batch_size), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(score_all(classify, TEXTS[::-1]).flip(0), expected, atol=1e-5, rtol=0)
    alone = torch.cat([score_all(classify, [text]) for text in TEXTS[:3]])
    torch.testing.assert_close(alone, expected[:3], atol=1e-5, rtol=0)


@pytest.mark.slow
def test__pipeline__protocols__differ() -> None:
    scores = [score_all(build(protocol), TEXTS) for protocol in ("stream", "vanilla", "loo")]
    assert (scores[0] - scores[1]).abs().max() > 1e-3
    assert (scores[1] - scores[2]).abs().max() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test__model__padding_side__same_logits(protocol: str, side: str) -> None:
    classify = build(protocol)
    batch = build_tokenizer(padding_side=side)(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        found = classify.model(**batch).logits.softmax(-1)
    torch.testing.assert_close(found, score_all(classify, TEXTS), atol=1e-5, rtol=0)


@pytest.mark.slow
def test__saved_task__loaded__same_bits_and_answers_in_the_stock_pipeline(protocol: str, tmp_path: Path) -> None:
    classify = build(protocol, tmp_path / "backbone")
    classify.save_pretrained(tmp_path / "task")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "task")
    batch = build_tokenizer()(TEXTS[:1], return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, classify.model(**inputs).logits)
    stock = pipeline("text-classification", model=str(tmp_path / "task"), top_k=None)
    torch.testing.assert_close(score_all(stock, TEXTS), score_all(classify, TEXTS), atol=1e-5, rtol=0)
    card = (tmp_path / "task" / "README.md").read_text()
    assert "the token ids of their prompt, from which the texts can be read" in card


def test__support_set__prompt__survives_its_file(protocol: str, tmp_path: Path) -> None:
    support = build(protocol).model.support
    support.save(tmp_path / "support.safetensors")
    assert SupportSet.load(tmp_path / "support.safetensors").prompt == support.prompt


def test__support_set__damaged_prompt__clear_error(tmp_path: Path) -> None:
    path = tmp_path / "support.safetensors"
    build("vanilla").model.support.save(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["support_set"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for damage in ({"question": []}, {"ids": ["a"]}, {"room": "b"}):
        damaged = {**facts, "prompt": {**facts["prompt"], **damage}}
        save_file(tensors, path, metadata={"support_set": json.dumps(damaged)})
        with pytest.raises(CorruptFileError, match="no readable support set"):
            SupportSet.load(path)


def test__support_set__of_another_protocol__refused() -> None:
    stream, vanilla = build("stream"), build("vanilla")
    with pytest.raises(ValueError, match="embedded with protocol='stream'"):
        vanilla(TEXTS, examples=stream.model.support)
    with pytest.raises(ValueError, match="embedded with protocol='vanilla'"):
        stream(TEXTS, examples=vanilla.model.support)


def test__examples__read_once_and_not_again_for_queries(protocol: str) -> None:
    classify = build(protocol)
    lengths: list[int] = []
    classify.model.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    classify(TEXTS)
    assert max(lengths) < len(classify.model.support.prompt.ids) + sum(len(text.split()) + 5 for text in TEXTS)
    assert len(lengths) == 1


def test__text_pairs__both_read_and_told_apart(protocol: str) -> None:
    classify = build(protocol)
    classify.set_examples([{**row, "text_pair": "w9 w8"} for row in make_examples()])
    pairs = [{"text": text, "text_pair": "w1 w2"} for text in TEXTS[:5]]
    found = score_all(classify, pairs)
    swapped = score_all(classify, [{"text": "w1 w2", "text_pair": text} for text in TEXTS[:5]])
    assert (found - swapped).abs().max() > 1e-4
    torch.testing.assert_close(score_all(classify, pairs[:1]), found[:1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="asks for a text and its text_pair: give the model token_type_ids"):
        classify("w1")
    blank = [{"text": "w1 w2", "text_pair": ""}, {"text": "", "text_pair": "w1"}]
    assert torch.isfinite(score_all(classify, blank)).all()
    with pytest.raises(ValueError, match="asks for a single text, an input holds a text and its text_pair"):
        build(protocol)(pairs)


def test__template__changes_what_is_read(protocol: str) -> None:
    expected = score_all(build(protocol), TEXTS)
    assert (score_all(build(protocol, template="w3 {text} w4 {label}"), TEXTS) - expected).abs().max() > 1e-4


def test__tokenizer_that_adds_special_tokens__query_read_without_them(protocol: str) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    model = build(protocol).model
    adding, plain = (make_pipeline(model, tokenizer=t, examples=None) for t in (tokenizer, build_tokenizer()))
    torch.testing.assert_close(score_all(adding, TEXTS), score_all(plain, TEXTS), atol=1e-5, rtol=0)
    adding.set_examples(make_examples())
    assert model.support.prompt.ids[0] == 1
    assert model.support.prompt.ids.count(1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stream", "vanilla", "loo"])
def test__embedding_cache__second_run__same_scores_without_the_backbone(name: str, tmp_path: Path) -> None:
    first = build(name)
    classify = make_pipeline(first.model, embedding_cache=tmp_path / "cache")
    expected = score_all(classify, TEXTS)
    again = make_pipeline(first.model, embedding_cache=tmp_path / "cache")
    again.model.backbone.register_forward_hook(lambda *args: pytest.fail("the backbone was called"))
    # equal embeddings lie elsewhere in memory; at its limit, rounding decides whether a support set is packed
    torch.testing.assert_close(score_all(again, TEXTS), expected, atol=5e-4, rtol=0)
    torch.testing.assert_close(expected, score_all(build(name), TEXTS), atol=5e-4, rtol=0)


@pytest.mark.slow
def test__embedding_cache__other_protocol_or_support__not_mixed_up(tmp_path: Path) -> None:
    # a cache embeds copies once, so its batches are others
    expected = [score_all(build(name), TEXTS) for name in ("stream", "vanilla")]
    for name, scores in zip(("stream", "vanilla"), expected, strict=True):
        classify = make_pipeline(build(name).model, embedding_cache=tmp_path)
        torch.testing.assert_close(score_all(classify, TEXTS), scores, atol=2e-3, rtol=0)
    other = make_pipeline(build("vanilla").model, examples=make_examples(seed=9), embedding_cache=tmp_path)
    plain = make_pipeline(build("vanilla").model, examples=make_examples(seed=9))
    torch.testing.assert_close(score_all(other, TEXTS), score_all(plain, TEXTS), atol=2e-3, rtol=0)


def test__encoder_backbone__refused_when_it_reads_examples(protocol: str) -> None:
    model = compose("bert", protocol=protocol)
    with pytest.raises(ValueError, match='reads a text in both directions.*Use protocol="stream"'):
        model.encode_support(make_examples(), build_tokenizer())


@pytest.mark.parametrize(
    "change",
    [{"protocol": "stream"}, {"pooling": "last"}, {"normalize": True}, {"layers": 0}, {"max_length": 2}],
)
def test__from_pretrained__setting_that_contradicts_the_stored_support__refused(
    change: dict[str, object], tmp_path: Path
) -> None:
    classify = build("vanilla", tmp_path / "backbone")
    classify.save_pretrained(tmp_path / "task")
    with pytest.raises(ValueError, match="holds a support set that was embedded with other values of"):
        TartForSequenceClassification.from_pretrained(tmp_path / "task", **change)
    options = classify.model.config.embedding_options
    same = {key: getattr(options if hasattr(options, key) else options.views[0], key) for key in change}
    assert TartForSequenceClassification.from_pretrained(tmp_path / "task", **same).support is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stream", "vanilla", "loo"])
def test__max_length__of_a_call_or_a_pipeline__same_as_of_the_config(name: str) -> None:
    config = score_all(build(name, max_length=3), TEXTS)
    model = build(name).model
    pipe = make_pipeline(model, max_length=3)
    torch.testing.assert_close(score_all(pipe, TEXTS), config, atol=1e-5, rtol=0)
    torch.testing.assert_close(score_all(pipe, TEXTS[:1]), config[:1], atol=1e-5, rtol=0)
    plain = make_pipeline(model, examples=None)
    called = score_all(plain, TEXTS, examples=make_examples(), max_length=3)
    torch.testing.assert_close(called, config, atol=1e-5, rtol=0)
    assert (score_all(build(name), TEXTS) - config).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["stream", "vanilla"])
def test__pipeline__single_text__same_as_in_a_list_with_any_max_length(name: str) -> None:
    classify = build(name, max_length=4)
    text = "w1 w2 w3 w4 w5 w6 w7"
    for max_length in (2, 4, 6):
        one = classify(text, top_k=None, max_length=max_length)
        assert one == classify([text], top_k=None, max_length=max_length)[0]


def test__prepared_support__dtype_of_the_backbone_changes__read_again(protocol: str) -> None:
    classify = build(protocol)
    expected = score_all(classify, TEXTS)
    classify.model.backbone.to(torch.float64)
    torch.testing.assert_close(score_all(classify, TEXTS), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["stream", "vanilla"])
def test__embedding_cache__settings_or_weights_change__new_keys(name: str, tmp_path: Path) -> None:
    model = build(name).model
    classify = make_pipeline(model, embedding_cache=tmp_path)
    first = score_all(classify, TEXTS)
    model.config.views = [View(pooling="last", layers="all")]
    classify.set_examples(make_examples())
    torch.testing.assert_close(score_all(classify, TEXTS), score_all(make_pipeline(model), TEXTS), atol=1e-5, rtol=0)
    model.config.views = [View(layers="all")]
    with torch.no_grad():
        model.backbone.layers[0].mlp.up_proj.weight.mul_(2)
    classify.set_examples(make_examples())
    changed = score_all(classify, TEXTS)
    torch.testing.assert_close(changed, score_all(make_pipeline(model), TEXTS), atol=1e-5, rtol=0)
    assert (changed - first).abs().max() > 1e-4
