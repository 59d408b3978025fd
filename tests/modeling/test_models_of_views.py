"""Models of several views: composing them, saving and loading, and the errors of views that do not fit."""

import copy
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

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
)
from helpers.media_backbones import compose_media
from tokenizers import processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

from transformers_tart import SupportSet, TartClassificationPipeline, TartConfig, TartForSequenceClassification, View
from transformers_tart.embeddings.views import PRESETS, VIEWS
from transformers_tart.errors import BackboneMismatchError, CorruptFileError


TEXTS = make_texts(5, seed=3)
PAIRS = [{"text": first, "text_pair": second} for first, second in zip(TEXTS, make_texts(5, seed=4), strict=True)]
EXAMPLE_PAIRS = [
    {"text": first, "text_pair": second, "label": "ab"[i % 2]}
    for i, (first, second) in enumerate(zip(make_texts(10, seed=5), make_texts(10, seed=6), strict=True))
]
# with a template and without, one passage and several, each kind of layers
SEVERAL = [
    View("plain", layers="all"),
    View("word", 'w1 "{text}" w2', "last", "late"),
    View("end", 'w1 "{text}', "last", -1),
    View("again", "{text} w3 {text}", "max", "1:", normalize=True),
]
PAIRED = [View("plain"), View("both", "w1 {text} w2 {text_pair} w3", "last"), View("joined", "{text} w4", "mean")]
DEFAULT, PLAIN, BEST = ([*PRESETS["causal"][name]] for name in ("default", "plain", "best"))
KINDS = {
    "llama": {"model_type": "llama", "views": SEVERAL},
    "bert": {"model_type": "bert", "views": SEVERAL},
    "default": {"model_type": "llama"},
    "plain": {"model_type": "gpt2", "views": "plain"},
    "best": {"model_type": "gpt_neox", "views": "best"},
    "loo": {"model_type": "llama", "protocol": "loo", "views": ["mean", "last_all"]},
}


def build(folder: Path, model_type: str, **options: Any) -> TartClassificationPipeline:
    model = TartForSequenceClassification.from_backbone(save_backbone(folder, model_type), **options)
    return make_pipeline(model)


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens around texts, and token types on pairs."""
    tokenizer = build_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B:1 </s>:1",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    return tokenizer


def names(model: TartForSequenceClassification) -> list[str | None]:
    return [view.name for view in model.config.views]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test__save_and_load__several_views__same_logits_bit_for_bit(kind: str, tmp_path: Path) -> None:
    classify = build(tmp_path / "base", **KINDS[kind])
    batch = build_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    expected, logits = score_all(classify, TEXTS), classify.model(**batch).logits
    classify.save_pretrained(tmp_path / "task")
    for loader in (AutoModel, AutoModelForSequenceClassification):
        loaded = loader.from_pretrained(tmp_path / "task")
        assert loaded.config.embedding_options == classify.model.config.embedding_options
        assert torch.equal(loaded(**batch).logits, logits)
    assert torch.equal(score_all(pipeline("tart-classification", model=str(tmp_path / "task")), TEXTS), expected)
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "task").views, tuple)
    fields = json.loads((tmp_path / "task" / "config.json").read_text())
    assert [view["name"] for view in fields["views"]] == names(classify.model)
    assert not {"pooling", "layers", "normalize", "template"} & fields.keys()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "bert", "best"])
def test__stored_task__several_views__ordinary_text_classification_pipeline(kind: str, tmp_path: Path) -> None:
    classify = build(tmp_path / "base", **KINDS[kind])
    classify.save_pretrained(tmp_path / "task", include_backbone=True)
    shutil.rmtree(tmp_path / "base")
    stock = pipeline("text-classification", model=str(tmp_path / "task"))
    torch.testing.assert_close(score_all(stock, TEXTS), score_all(classify, TEXTS), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (None, DEFAULT),
        ("default", DEFAULT),
        ("best", BEST),
        ("plain", PLAIN),
        ("echo_all", ["echo_all"]),
        (View(pooling="last"), ["last"]),
        (["mean", View("mine", "{text} w1", "last"), View(), View(pooling="max")], ["mean", "mine", "mean_2", "max"]),
    ],
)
def test__from_backbone__views__preset_name_view_or_list(views: Any, expected: list[str]) -> None:
    model = compose(views=views)
    assert names(model) == expected
    assert len(set(names(model))) == len(expected)
    assert score_all(make_pipeline(model), TEXTS).shape == (len(TEXTS), 2)


def test__from_backbone__reasoner_that_projects__last_layer_of_the_first_view() -> None:
    (view,) = compose(reasoner="gpt2").config.views
    assert view == replace(VIEWS[DEFAULT[0]], layers=-1)
    assert names(compose(reasoner="gpt2", views="plain")) == PLAIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "plain", "pooling": "mean"}, r"views and \['pooling'\] are given, .*; give one"),
        (
            {"views": "one_wrod"},
            "views has 'one_wrod'; give one of .*'default', 'plain', 'best'.*a View, or names of .*'echo'",
        ),
        ({"views": ["mean", "sum"]}, "views has 'sum'"),
        ({"views": []}, "views has 0 views; give 1 to 64"),
        ({"views": [View("a"), View("a", pooling="last")]}, "views holds two views of one name"),
        ({"views": 3}, "views is .*3.* of type .*; give a list of View objects"),
        ({"views": View(template="{text} {label}")}, r'holds {label}, but protocol "stream" embeds texts alone'),
        ({"views": View(pooling="sum")}, "pooling is 'sum'; it must be one of"),
        ({"protocol": "loo", "views": "one_word"}, "The template .* has the fields"),
        (
            {"protocol": "loo", "views": [View("a"), View("b", "{text} {label}")]},
            "reads all views from one prompt, and they have several templates",
        ),
    ],
)
def test__from_backbone__views_that_do_not_fit__clear_error(options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        compose(**options)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(template="w1 {text}"), "template is 'w1 {text}', which is for texts, not for image"),
        (View(pooling="last"), "pooling is 'last'; it must be one of"),
    ],
)
def test__from_backbone__view_of_texts_for_images__clear_error(view: View, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose_media("vit", views=[view])
    assert names(compose_media("vit", views="max_late")) == ["max_late"]


@pytest.mark.parametrize(
    ("field", "value"), [("layers", -1), ("pooling", "max"), ("template", "w2 {text}"), ("normalize", True)]
)
def test__classify__view_changed_in_memory__refused_with_its_name_and_field(field: str, value: Any) -> None:
    classify = make_pipeline(compose(views=SEVERAL))
    before = classify(TEXTS)
    own = classify.model.config.views
    classify.model.config.views = [*own[:1], View(**{**own[1].as_dict(), field: value}), *own[2:]]
    message = rf"embedded with word\.{field}=.*the config of the model has word\.{field}="
    with pytest.raises(BackboneMismatchError, match=message):
        classify(TEXTS)
    with pytest.raises(BackboneMismatchError, match=message):
        classify.model.save_pretrained("unused", include_backbone=True)
    classify.model.config.views = list(own)
    assert classify(TEXTS) == before


@pytest.mark.parametrize("change", [lambda views: views[:-1], lambda views: views[::-1]])
def test__classify__view_left_out_or_moved__refused(change: Any) -> None:
    classify = make_pipeline(compose(views=SEVERAL))
    classify.model.config.views = change(classify.model.config.views)
    with pytest.raises(BackboneMismatchError, match=r"embedded with views=\['plain', 'word', 'end', 'again'\]"):
        classify(TEXTS)
    classify.set_examples(make_examples())
    assert len(classify(TEXTS)) == len(TEXTS)


def test__from_pretrained__config_of_other_views__names_view_and_field(tmp_path: Path) -> None:
    build(tmp_path / "base", "llama", views=SEVERAL).save_pretrained(tmp_path / "task")
    path = tmp_path / "task" / "config.json"
    fields = json.loads(path.read_text())
    fields["views"][2]["pooling"] = "mean"
    path.write_text(json.dumps(fields))
    with pytest.raises(
        CorruptFileError, match=r"embedded with end\.pooling='last', the config has end\.pooling='mean'"
    ):
        AutoModel.from_pretrained(tmp_path / "task")
    fields["views"][2] = {**fields["views"][2], "window": 3}
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"unknown fields \['window'\].*Update transformers-tart"):
        AutoModel.from_pretrained(tmp_path / "task")


@pytest.fixture(scope="module")
def composition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved composition without examples."""
    folder = tmp_path_factory.mktemp("composition")
    base = save_backbone(folder / "base", "llama")
    TartForSequenceClassification.from_backbone(base).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("loader", [AutoModel, TartForSequenceClassification])
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"views": "plain"}, PLAIN),
        ({"views": ["echo", View(pooling="max")]}, ["echo", "max"]),
        ({"views": View("mine", "w1 {text}")}, ["mine"]),
        ({"pooling": "last"}, ["last"]),
        ({"protocol": "vanilla", "views": "default"}, [*PRESETS["prompt"]["default"]]),
        ({}, DEFAULT),
    ],
)
def test__from_pretrained__views_asked_for__replace_those_of_a_composition(
    loader: Any, asked: dict, expected: list[str], composition: Path
) -> None:
    model = loader.from_pretrained(composition, **asked)
    assert names(model) == expected
    again = TartForSequenceClassification.from_backbone(composition.parent / "base", **asked)
    assert model.config.embedding_options == again.config.embedding_options


@pytest.mark.parametrize("loader", [AutoModel, TartForSequenceClassification])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"views": "plane"}, "views has 'plane'; give one of"),
        ({"views": "sentence"}, "does not describe the view 'sentence'"),
        ({"views": "plain", "pooling": "last"}, r"views and \['pooling'\] are given"),
        ({"views": View(template="{text} {label}")}, "protocol .stream. embeds texts alone"),
    ],
)
def test__from_pretrained__views_that_do_not_fit__clear_error(
    loader: Any, asked: dict, message: str, composition: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        loader.from_pretrained(composition, **asked)


@pytest.mark.slow
def test__from_pretrained__views_of_a_stored_support__others_refused(tmp_path: Path) -> None:
    classify = build(tmp_path / "base", "llama", views="plain")
    classify.save_pretrained(tmp_path / "task")
    for loader in (AutoModel.from_pretrained, TartForSequenceClassification.from_pretrained, load):
        for views in ("plain", list(classify.model.config.views)):
            assert names(getattr(loaded := loader(tmp_path / "task", views=views), "model", loaded)) == PLAIN
        for views, what in (("best", "views"), (["mean_all", VIEWS["last_all"]], "views")):
            with pytest.raises(ValueError, match=rf"embedded with other values of .'{what}'.: with .*not with .*"):
                loader(tmp_path / "task", views=views)
        changed = [replace(VIEWS[PLAIN[0]], layers=0), *PLAIN[1:]]
        with pytest.raises(ValueError, match=rf"other values of .'{PLAIN[0]}\.layers'.: with .*, not with .*layers=0"):
            loader(tmp_path / "task", views=changed)


def load(model: Any, **options: Any) -> TartClassificationPipeline:
    return pipeline("tart-classification", model=str(model), **options)


def test__pipeline__views__where_it_composes(composition: Path) -> None:
    base, examples = composition.parent / "base", make_examples()
    expected = score_all(make_pipeline(compose(views="plain")), TEXTS)
    for model in (str(base), build_backbone("llama"), str(composition)):
        given = {"tokenizer": build_tokenizer(), "views": "plain", "examples": examples}
        classify = pipeline("tart-classification", model=model, **given)
        assert names(classify.model) == PLAIN
        torch.testing.assert_close(score_all(classify, TEXTS), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="views is given with a model that is loaded already"):
        make_pipeline(compose(), views="plain")
    with pytest.raises(ValueError, match="views has 'plane'"):
        load(base, views="plane")


def test__pipeline__no_model__views_of_the_one_in_the_package() -> None:
    classify = pipeline("tart-classification", views="plain", examples=make_examples())
    assert names(classify.model) == PLAIN
    assert classify("w1")["label"] in ("ham", "spam")


@pytest.mark.parametrize("make", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test__copy__several_views__same_answers(make: Any, kind: str) -> None:
    classify = make_pipeline(compose(**KINDS[kind]))
    expected = classify(TEXTS, top_k=None)
    again = make(classify)
    assert again(TEXTS, top_k=None) == expected
    assert make(again)(TEXTS, top_k=None) == expected


def test__set_examples__templates__beginnings_encoded_once() -> None:
    classify, calls = make_pipeline(compose(views=SEVERAL), examples=None), []
    classify.set_examples(make_examples())
    classify.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    classify(TEXTS)
    # one pass for the view without a template, one for the two that begin alike, and one for the last
    assert len(calls) == 3
    classify(TEXTS[0])
    assert len(calls) == 6


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["bert", "llama"])
@pytest.mark.parametrize("views", [PAIRED, PAIRED[1:], PAIRED[2:]])
def test__pairs__templates__pipeline_and_forward_alike(model_type: str, views: list[View]) -> None:
    tokenizer = pair_tokenizer()
    classify = make_pipeline(compose(model_type, views=views), tokenizer=tokenizer, examples=EXAMPLE_PAIRS)
    found = score_all(classify, PAIRS)
    first, second = ([pair[name] for pair in PAIRS] for name in ("text", "text_pair"))
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer(first, second, padding=True, return_tensors="pt")
        logits = classify.model(**batch).logits
        torch.testing.assert_close(logits.softmax(1), found, atol=1e-4, rtol=0)
    alone = torch.cat([score_all(classify, [pair]) for pair in PAIRS])
    torch.testing.assert_close(alone, found, atol=1e-4, rtol=0)
    swapped = [{"text": pair["text_pair"], "text_pair": pair["text"]} for pair in PAIRS]
    assert (score_all(classify, swapped) - found).abs().max() > 1e-3
    assert classify({"text": "w1", "text_pair": ""})["label"] in ("a", "b")


def test__pairs__template_of_pairs_and_a_single_text__clear_error() -> None:
    classify = make_pipeline(compose(views=PAIRED), examples=EXAMPLE_PAIRS)
    with pytest.raises(ValueError, match="asks for a text and its text_pair, an input holds a single text"):
        classify("w1 w2")


def test__support_set__templates_of_other_views__refused() -> None:
    model = compose(views=SEVERAL)
    support = model.encode_support(make_examples(), build_tokenizer())
    bare = SupportSet(support.embeddings, support.labels, support.label_names)
    with pytest.raises(ValueError, match="3 views have templates, but the support set holds no prompt"):
        make_pipeline(model, examples=None)(TEXTS, examples=bare)
    with pytest.raises(BackboneMismatchError, match=r"embedded with views=\['plain', 'word', 'end', 'again'\]"):
        make_pipeline(compose(views="plain"), examples=None)(TEXTS, examples=support)


def test__config__views__as_fields_objects_and_arguments_of_0_1() -> None:
    given = [{"name": "a", "pooling": "last", "layers": "2:"}, View("b", "w1 {text}")]
    config = TartConfig(views=given)
    assert config.views == (View("a", None, "last", "2:"), View("b", "w1 {text}"))
    assert TartConfig.from_dict(config.to_dict()).views == config.views
    assert TartConfig(pooling="last", layers=2, normalize=True).views == (View("last", None, "last", 2, True),)
    assert TartConfig().views == (View("mean", layers="all"),)
