"""Views: one pass of several is what each of them gives alone."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_pipeline, score_all, shared_reasoner
from helpers.caches import make_cache
from helpers.media_backbones import FAMILIES, compose_media, make_media, processor_of, shared_media
from helpers.prompts_given import ask, build_long, read_support, write
from helpers.views_given import (
    READERS,
    TEXTS,
    VIEWS,
    build_adding,
    embedder_of,
    examples_of,
    read_by_hand,
    read_texts,
    tokenizer_for,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.embeddings.views import VIEWS as REGISTRY
from transformers_tart.embeddings.views import choose_views, layer_counts, split_views
from transformers_tart.inputs.views import View


CLOSE = {"atol": 1e-4, "rtol": 1e-4}
TEMPLATES = ["w1 w2 {text}", "w1 w2 {text} w3", "w1 {text} w3 {text}", "{text}", "{text} w4 {text} w5", None]


@st.composite
def drawn_views(draw: st.DrawFn) -> tuple[View, ...]:
    """A few views of any template, pooling and layers."""
    pooling, layers = (
        st.sampled_from(["mean", "last", "first", "second", "max"]),
        st.sampled_from([-1, 0, 1, "all", "late", "1:"]),
    )
    kinds = st.tuples(st.sampled_from(TEMPLATES), pooling, layers, st.booleans())
    return tuple(View(f"view {i}", *each) for i, each in enumerate(draw(st.lists(kinds, min_size=1, max_size=4))))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test__embed_examples__several_views_of_any_backbone__as_each_alone_and_by_hand(name: str) -> None:
    backbone, tokenizer = READERS[name](), tokenizer_for(name)
    traits = BackboneTraits(backbone)
    together = split_views(read_texts(embedder_of(traits, VIEWS), tokenizer), VIEWS)
    for view, found in zip(VIEWS, together, strict=True):
        torch.testing.assert_close(found, read_texts(embedder_of(traits, [view]), tokenizer), **CLOSE)
        torch.testing.assert_close(found, read_by_hand(backbone, tokenizer, view), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "bert"])
def test__embed_rows__queries__as_the_examples(name: str) -> None:
    tokenizer = tokenizer_for(name)
    embedder = embedder_of(READERS[name](), VIEWS)
    embeddings, order, reading = embedder.embed_examples(examples_of(TEXTS), tokenizer)
    assert order == list(range(len(TEXTS)))
    rows = embedder.tokenize(tokenizer, TEXTS)
    found = embedder.embed_rows(rows, reading, pad_token_id=0)
    torch.testing.assert_close(found, embeddings, **CLOSE)
    again = embedder.read_support(None, reading.phrasing)
    torch.testing.assert_close(embedder.embed_rows(rows[:2], again, pad_token_id=0), embeddings[:2], **CLOSE)


@pytest.mark.slow
@given(views=drawn_views())
def test__embed_examples__any_views__as_by_hand(views: tuple[View, ...]) -> None:
    backbone, tokenizer = build_backbone("llama"), build_tokenizer()
    found = split_views(read_texts(embedder_of(backbone, views), tokenizer, TEXTS[:3]), views)
    for view, each in zip(views, found, strict=True):
        torch.testing.assert_close(each, read_by_hand(backbone, tokenizer, view, TEXTS[:3]), **CLOSE)


@pytest.mark.parametrize(
    ("views", "passes"),
    [
        (VIEWS[:3], 1),
        (VIEWS[2::-1], 1),
        ((VIEWS[0], VIEWS[4], VIEWS[1]), 2),
        (VIEWS, 3),
        (choose_views("default", "causal"), 1),
        (choose_views("plain", "causal"), 1),
        (choose_views("best", "causal"), 2),
    ],
)
def test__embed_rows__templates_that_begin_alike__one_forward_pass(views: tuple[View, ...], passes: int) -> None:
    backbone, tokenizer = build_backbone("llama"), build_tokenizer()
    embedder, calls = embedder_of(backbone, views), []
    rows = embedder.tokenize(tokenizer, TEXTS[:3])
    reading = embedder.embed_examples(examples_of(TEXTS[:3]), tokenizer).reading
    backbone.register_forward_hook(lambda *args: calls.append(1))
    embedder.embed_rows(rows, reading, pad_token_id=0)
    assert len(calls) == passes


def test__embed_rows__beginning_of_a_template__read_once() -> None:
    backbone, tokenizer, lengths = build_backbone("llama"), build_tokenizer(), []
    embedder = embedder_of(backbone, [View("long", "w1 " * 20 + "{text}", "mean")])
    reading = embedder.embed_examples(examples_of(TEXTS), tokenizer).reading
    backbone.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    embedder.embed_rows(embedder.tokenize(tokenizer, TEXTS), reading)
    assert 0 <= sum(lengths) - sum(len(text.split()) for text in TEXTS) < 4  # the texts and little padding


def test__embed_examples__bidirectional_backbone__templates_apart_and_sharing_off() -> None:
    embedder = embedder_of(build_backbone("bert"), VIEWS)
    reading = embedder.embed_examples(examples_of(TEXTS[:2]), build_adding()).reading
    assert [passage.views for passage in reading.phrasing.passages] == [(0,), (1,), (2,), (4,)]
    assert {prefix.strategy for prefix in reading.prefixes} == {"off"}


@pytest.mark.slow
@given(batch_size=st.integers(1, 9), order=st.permutations(range(len(TEXTS))))
def test__embed_examples__batch_size_and_order__follow_the_texts(batch_size: int, order: list[int]) -> None:
    backbone, tokenizer = build_backbone("gpt_neox"), build_tokenizer()
    expected = read_texts(embedder_of(backbone, VIEWS), tokenizer)[torch.tensor(order)]
    found = read_texts(embedder_of(backbone, VIEWS), tokenizer, [TEXTS[i] for i in order], batch_size=batch_size)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "bert"])
def test__embed_batch__either_padding_side__as_the_rows(name: str, side: str) -> None:
    tokenizer = build_adding(padding_side=side)
    embedder = embedder_of(READERS[name](), VIEWS)
    embeddings, _, reading = embedder.embed_examples(examples_of(TEXTS), tokenizer)
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    torch.testing.assert_close(embedder.embed_batch(batch, reading), embeddings, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
@pytest.mark.parametrize("name", ["llama", "gpt_neo", "bloom", "gemma3_text", "mamba"])
def test__read_support__several_views_of_a_prompt__as_each_alone(name: str, protocol: str) -> None:
    backbone = READERS[name]()
    written, traits = write(backbone), BackboneTraits(backbone)
    views = (View("mean", layers="all"), View("last", pooling="last"), View("max", None, "max", -1))
    encoder = PrefixEncoder(traits, views)
    support, prefix = read_support(encoder, written, protocol)
    queries = encoder.embed(prefix, ask(written))
    for number, view in enumerate(views):
        alone = replace(encoder, views=(view,))
        expected, prefix = read_support(alone, written, protocol)
        torch.testing.assert_close(split_views(support, views)[number], expected, **CLOSE)
        found = split_views(queries, views)[number]
        torch.testing.assert_close(found, alone.embed(prefix, ask(written)), **CLOSE)


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__pipeline__several_views_of_a_prompt__batch_size_and_padding_do_not_matter(protocol: str) -> None:
    views = [View(pooling="mean", layers=-1), View(pooling="last", layers=-1)]
    reasoner = copy.deepcopy(shared_reasoner())
    model = TartForSequenceClassification.from_backbone(build_long("llama"), reasoner, protocol=protocol, views=views)
    classify = make_pipeline(model)
    expected = score_all(classify, TEXTS[:5])
    torch.testing.assert_close(score_all(classify, TEXTS[:5], batch_size=2), expected, atol=1e-5, rtol=0)
    batch = build_tokenizer(padding_side="left")(TEXTS[:5], padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model(**inputs).logits.softmax(-1), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@given(views=drawn_views(), other=drawn_views())
def test__embedding_cache__models_of_other_views__never_mixed_up(
    views: tuple[View, ...], other: tuple[View, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    backbone, tokenizer = build_backbone("llama"), build_tokenizer()
    cache = make_cache(tmp_path_factory.mktemp("cache"), backbone)
    for chosen in (views, other, views):
        expected = read_texts(embedder_of(backbone, chosen), tokenizer, TEXTS[:3])
        torch.testing.assert_close(read_texts(embedder_of(backbone, chosen, cache), tokenizer, TEXTS[:3]), expected)


def test__embedding_cache__views_again__without_the_backbone(tmp_path: Path) -> None:
    backbone, tokenizer, calls = build_backbone("llama"), build_tokenizer(), []
    cache = make_cache(tmp_path, backbone)
    embedder = embedder_of(backbone, VIEWS, cache)
    expected, _, reading = embedder.embed_examples(examples_of(TEXTS), tokenizer)
    backbone.register_forward_hook(lambda *args: calls.append(1))
    found = embedder.embed_rows(embedder.tokenize(tokenizer, TEXTS), reading, pad_token_id=0)
    assert torch.equal(found, expected)
    assert not calls


def test__embedding_cache__prompt_and_template_of_the_same_tokens__not_mixed_up(tmp_path: Path) -> None:
    backbone = build_long("llama")
    cache, views = make_cache(tmp_path, backbone), (View("mean", layers=-1),)
    written = write(backbone, template="w9 {text} w8 {label}")
    encoder = PrefixEncoder(BackboneTraits(backbone), views, cache)
    _, prompt = read_support(encoder, written, "vanilla")
    plain = replace(prompt, query_prefix=None, query_prefix_length=0)
    queries = ask(written)
    expected = [replace(encoder, cache=None).embed(prefix, queries) for prefix in (prompt, plain)]
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    for prefix, each in zip((prompt, plain), expected, strict=True):
        torch.testing.assert_close(encoder.embed(prefix, queries), each)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test__embed_rows__several_views_of_media__as_each_alone(name: str) -> None:
    poolings = ["mean", "max"] if name in ("swin", "convnext") else ["mean", "max", "first"]
    views = [View(pooling=pooling, layers=layers) for pooling in poolings for layers in ("all", "late", -1)]
    views = [replace(view, name=f"{i}", normalize=i % 2 == 1) for i, view in enumerate(views)]
    items, processor = make_media(FAMILIES[name].modality, 4), processor_of(name)

    def read(chosen: list[View]) -> tuple[Tensor, int]:
        embedder, calls = compose_media(name, shared_media(name), views=chosen).embedder(), []
        rows = [embedder.row(processor, item, "It") for item in items]
        embedder.embed_rows(rows)  # probes the backbone
        hook = embedder.backbone.register_forward_hook(lambda *args: calls.append(1))
        found = embedder.embed_rows(rows)
        hook.remove()
        return found, len(calls)

    together, passes = read(views)
    for view, found in zip(views, split_views(together, views), strict=True):
        expected, alone = read([view])
        torch.testing.assert_close(found[..., : expected.shape[-1]], expected, **CLOSE)
        assert not found[..., expected.shape[-1] :].any()
        assert passes == alone


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test__embed_rows__max_of_images__largest_of_the_tokens(name: str) -> None:
    model = compose_media(name, shared_media(name), pooling="max", layers=-1)
    embedder, processor = model.embedder(), processor_of(name)
    rows = [embedder.row(processor, item, "It") for item in make_media("image", 2)]
    with torch.no_grad():
        states = model.backbone(**embedder.collate(processor, rows)).last_hidden_state
    expected = states.amax(1) if name == "vit" else states.amax((2, 3))
    torch.testing.assert_close(embedder.embed_rows(rows)[:, 0], expected)


def test__split_views__layers_of_each__by_their_sum() -> None:
    views = (View("a", layers="late"), View("b", layers=-1), View("c", layers="1:3"), View("d", layers="all"))
    for count in range(3, 40):
        expected = tuple(len(view.indices(count)) for view in views)
        assert layer_counts(views, sum(expected)) == expected
    parts = split_views(torch.arange(9.0)[None, :, None], (View("a", layers="all"), View("b", layers=-1)))
    assert [part[0, :, 0].tolist() for part in parts] == [list(range(8)), [8.0]]
    with pytest.raises(ValueError, match="have 3 layers, which the views .* do not give"):
        split_views(torch.zeros(1, 3, 4), (View("a", layers=-1), View("b", layers=0)))


@pytest.mark.parametrize("kind", ["causal", "prompt", "masked", "sentence", "image", "audio"])
def test__choose_views__names__of_the_registry(kind: str) -> None:
    for preset in ("default", "plain", "best"):
        assert choose_views(preset, kind) == choose_views(list(choose_views(preset, kind)), kind)
    mine = View("mine", "w1 {text}")
    assert choose_views(["mean", mine], kind) == (REGISTRY["mean"], mine)
    assert choose_views(mine, kind) == (mine,)
    with pytest.raises(ValueError, match=r"views has 'meen'; give one of .*'default'.*, a View, or names of .*'echo'"):
        choose_views("meen", kind)
    with pytest.raises(TypeError, match="give a list of View objects"):
        choose_views([3], kind)


def test__registry__names__of_the_views_themselves() -> None:
    assert {name: view.name for name, view in REGISTRY.items()} == {name: name for name in REGISTRY}


@pytest.mark.parametrize("name", ["llama", "bert"])
def test__embed_examples__empty_texts__finite_and_alike(name: str) -> None:
    tokenizer = tokenizer_for(name)
    found = read_texts(embedder_of(READERS[name](), VIEWS), tokenizer, ["", "w1", " "])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:1], found[2:], **CLOSE)
