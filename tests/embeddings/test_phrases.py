"""Phrases: what stands around a text, what is cut, and what is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import (
    build_backbone,
    build_tokenizer,
    make_pipeline,
    save_backbone,
    score_all,
    shared_reasoner,
)
from helpers.views_given import VIEWS, bare, build_adding, embedder_of, examples_of, read_by_hand, read_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings.phrases import Passage, Phrase, Phrasing
from transformers_tart.errors import CorruptFileError
from transformers_tart.inputs.views import View
from transformers_tart.loading.embedded import MINI


LITERALS = ('This "', '" {is', '}: "', '" in one word: "')
QUOTING = View("quoting", 'This "{text}" {{is{text}}}: "{text}" in one word: "', "last")
HOSTILE = ['"', "{", "}", "\n", "{text}", "{text_pair}", "{label}", "<|endoftext|>", '" in one word: "', "a", " ", "é"]
TEXTS = ["w5 w6", "w7", "w8 w9 w5 w6"]


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerBase:
    """A tokenizer in which every character counts."""
    return AutoTokenizer.from_pretrained(MINI)


def phrasing_of(
    views: list[View], tokenizer: PreTrainedTokenizerBase, is_causal: bool = True, context: int | None = None
) -> Phrasing:
    return Phrasing.of(views, tokenizer, is_causal, context)


def ids_of(phrasing: Phrasing, views: list[View], parts: list[list[int]], limit: int | None = None) -> list[int]:
    """The token ids of the first passage around texts, the beginning that is read once included."""
    passage = phrasing.passages[0]
    return [*passage.phrase.literals[0], *phrasing.continuation(passage, views, parts, limit).ids]


@settings(max_examples=50)
@given(text=st.lists(st.sampled_from(HOSTILE), max_size=6).map("".join))
def test__continuation__any_text__never_touches_the_template(text: str, bytewise: PreTrainedTokenizerBase) -> None:
    phrasing, given = phrasing_of([QUOTING], bytewise), bare(bytewise, text) or [bytewise.bos_token_id]
    pieces = [bare(bytewise, literal) for literal in LITERALS]
    expected = [*pieces[0], *given, *pieces[1], *given, *pieces[2], *given, *pieces[3]]
    assert ids_of(phrasing, [QUOTING], [bare(bytewise, text)]) == expected
    assert embedder_of(build_backbone("llama"), [QUOTING]).tokenize(bytewise, [text])[0]["parts"] == [
        bare(bytewise, text)
    ]


@pytest.mark.parametrize(("is_causal", "end"), [(True, []), (False, [2])])
def test__continuation__tokenizer_that_adds_tokens__once_around_the_template(is_causal: bool, end: list[int]) -> None:
    tokenizer, view = build_adding(), View("a", "w1 {text} w2", "mean")
    phrasing = phrasing_of([view], tokenizer, is_causal)
    assert ids_of(phrasing, [view], [[9, 8]]) == [1, *bare(tokenizer, "w1"), 9, 8, *bare(tokenizer, "w2"), *end]


@given(length=st.integers(0, 40), limit=st.none() | st.integers(1, 9), context=st.none() | st.integers(7, 30))
def test__continuation__long_text__cut_and_never_the_template(
    length: int, limit: int | None, context: int | None
) -> None:
    tokenizer = build_tokenizer()
    views = [View("echo", "w1 w2 {text} w3 {text} w4 w4", "mean"), View("last", "w1 w2 {text} w3 {text}", "last")]
    phrasing, text = phrasing_of(views, tokenizer, True, context and max(context, 8)), list(range(20, 20 + length))
    limits = [each for each in (limit, None if context is None else (max(context, 8) - 6) // 2) if each is not None]
    kept = text[: min(limits)] if limits else text
    kept = kept or [phrasing.neutral]
    ids = ids_of(phrasing, views, [text], limit)
    assert ids == [5, 6, *kept, 7, *kept, 8, 8]
    assert context is None or len(ids) <= max(context, 8)
    spans = phrasing.continuation(phrasing.passages[0], views, [text], limit).spans
    assert spans == ((len(kept) + 1, 2 * len(kept) + 1), (2 * len(kept), 2 * len(kept) + 1))


@pytest.mark.parametrize("side", ["right", "left"])
def test__continuation__truncation_side__of_the_tokenizer(side: str) -> None:
    view = View("a", "{text} w1", "mean")
    phrasing = phrasing_of([view], build_tokenizer(truncation_side=side))
    expected = [11, 12] if side == "right" else [13, 14]
    assert ids_of(phrasing, [view], [[11, 12, 13, 14]], 2) == [*expected, 5]


@pytest.mark.parametrize(
    ("backbone", "own", "max_length", "words"), [(64, None, None, 27), (64, 20, None, 5), (64, 20, 3, 3)]
)
def test__embed_examples__long_text__cut_to_the_smallest_limit(
    backbone: int, own: int | None, max_length: int | None, words: int
) -> None:
    view = View("echo", "w1 w2 {text} w3 w4 w5 {text} w6 w7 w8 w9", "mean", "all")
    tokenizer = build_tokenizer(**({} if own is None else {"model_max_length": own}))
    llama, text = build_backbone("llama", max_position_embeddings=backbone), [f"w{i}" for i in range(20, 90)]
    found = read_texts(embedder_of(llama, [view], max_length=max_length), tokenizer, [" ".join(text)])
    expected = read_by_hand(llama, tokenizer, view, [" ".join(text[:words])])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test__embed_examples__template_longer_than_the_context__says_which(name: str) -> None:
    views = [VIEWS[0], View("endless", "w1 " * 63 + "{text} {text}", "mean")]
    with pytest.raises(ValueError, match="the view 'endless' takes 63 tokens .*, and the backbone reads 64"):
        read_texts(embedder_of(build_backbone(name), views), build_tokenizer())


def test__continuation__pairs__as_the_template_asks() -> None:
    tokenizer = build_tokenizer()
    pair, single = View("pair", "w1 {text} w2 {text_pair} w3", "mean"), View("single", "w1 {text} w3", "mean")
    phrasing = phrasing_of([pair, single], tokenizer)
    assert [passage.views for passage in phrasing.passages] == [(0,), (1,)]
    assert ids_of(phrasing, [pair, single], [[20, 21], [22]]) == [5, 20, 21, 6, 22, 7]
    assert ids_of(phrasing, [pair, single], [[20], []]) == [5, 20, 6, 7]
    separated = Phrasing(phrasing.passages[1:], separator=(50,))
    for parts, expected in (([[20], [22]], [20, 50, 22]), ([[20], []], [20]), ([[], [22]], [22]), ([[], []], [0])):
        assert ids_of(separated, [pair, single], parts) == [5, *expected, 7]
    assert ids_of(separated, [pair, single], [[20, 21], [22, 23]], 4) == [5, 20, 21, 50, 22, 7]
    with pytest.raises(ValueError, match="asks for a text and its text_pair, an input holds a single text; give both"):
        ids_of(phrasing, [pair, single], [[20]])


def test__embed_rows__pairs_in_templates__rows_and_batches_alike() -> None:
    tokenizer = build_adding(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    views = [View("a", "w1 {text} w2 {text_pair}", "mean"), View("b", "{text} w9", "last")]
    for chosen in (views, [*views, View("plain", None, "mean")]):
        embedder = embedder_of(build_backbone("bert"), chosen)
        pairs = [("w5 w6", "w7"), ("w5", "w7 w8 w9"), ("w5", "")]
        found, _, reading = embedder.embed_examples(examples_of(pairs), tokenizer)
        rows = embedder.embed_rows(embedder.tokenize(tokenizer, pairs), reading, pad_token_id=0)
        torch.testing.assert_close(rows, found, atol=1e-4, rtol=1e-4)
        swapped = read_texts(embedder, tokenizer, [pair[::-1] for pair in pairs[:2]])
        assert (swapped - found[:2]).abs().max() > 1e-3
        firsts, seconds = zip(*pairs[:2], strict=True)
        batch = tokenizer(list(firsts), list(seconds), padding=True, return_tensors="pt")
        torch.testing.assert_close(embedder.embed_batch(dict(batch), reading), found[:2], atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="asks for a text and its text_pair, an input holds a single text"):
            embedder.embed_rows(embedder.tokenize(tokenizer, ["w5"]), reading, pad_token_id=0)


def test__phrasing__json__same_again() -> None:
    for is_causal in (True, False):
        phrasing = phrasing_of(list(VIEWS), build_adding(), is_causal, 99)
        assert Phrasing.from_json(json.loads(json.dumps(phrasing.as_json()))) == phrasing


def test__phrase__begins__tokens_and_texts_at_the_beginning() -> None:
    short, longer = Phrase(((1,), ()), (0,)), Phrase(((1,), (2,), (3,)), (0, 0))
    assert short.begins(longer)
    assert short.begins(short)
    assert not longer.begins(short)
    for other in (Phrase(((4,), ()), (0,)), Phrase(((1,), (5,)), (0,)), Phrase(((1,), ()), (1,))):
        assert not other.begins(longer)
    assert not Phrase(((1,), ()), (0,), (9,)).begins(longer)


@pytest.mark.parametrize(
    "passages",
    [
        (),
        (Passage((), ()),),
        (Passage((0, 1), (Phrase(((1,), ()), (0,)),)),),
        (Passage((0,), (Phrase(((1,),), ()),)),),
        (Passage((0,), (Phrase(((1,), (), ()), (1, 1)),)),),
        (Passage((0,), (Phrase(((1,), ()), (0, 2)),)),),
        (Passage((0, 1), (Phrase(((1,), ()), (0,)), Phrase(((2,), (3,)), (0,)))),),
    ],
)
def test__phrasing__incomplete_passages__refused(passages: tuple[Passage, ...]) -> None:
    with pytest.raises(ValueError, match="the templates of its views are incomplete"):
        Phrasing(passages)


def test__phrasing__context_that_holds_no_text__refused() -> None:
    passage = Passage((0,), (Phrase(((1, 1), (2,)), (0,)),))
    assert Phrasing((passage,), context=4).context == 4
    with pytest.raises(ValueError, match="context of its templates is 3, and they need 4 tokens at least"):
        Phrasing((passage,), context=3)


def build_task(folder: Path | None = None, views: Any = VIEWS) -> Any:
    backbone = build_backbone("llama") if folder is None else save_backbone(folder)
    return make_pipeline(
        TartForSequenceClassification.from_backbone(backbone, copy.deepcopy(shared_reasoner()), views=views)
    )


@pytest.mark.slow
def test__saved_task__views_with_templates__same_scores(tmp_path: Path) -> None:
    classify = build_task(tmp_path / "backbone")
    classify.save_pretrained(tmp_path / "task")
    loaded = TartForSequenceClassification.from_pretrained(tmp_path / "task")
    assert loaded.config.views == VIEWS
    assert loaded.support.phrasing == classify.model.support.phrasing
    again = make_pipeline(loaded, examples=None)
    assert torch.equal(score_all(again, TEXTS), score_all(classify, TEXTS))


# Damage to the passages of a file: views of each passage, and their phrases (literals, fields, end).
DAMAGES: list[dict[str, Any]] = [
    {"neutral": -1},
    {"neutral": 1.5},
    {"neutral": 99},
    {"context": "a"},
    {"context": 0},
    {"context": 4},
    {"context": 10**6},
    {"context": None},
    {"truncation_side": "middle"},
    {"separator": ["a"]},
    {"separator": [-1]},
    {"separator": [99]},
    {"special": 3},
    {"passages": []},
    {"passages": None},
    {"passages": ["ab"]},
    {"passages": [[[0], []]]},
    {"passages": [[[0], [[[[5], []], [0], []]]]]},  # of one view of two
    {"passages": [[[0, 0], [[[[5], []], [0], []], [[[5], [6]], [0], []]]]]},
    {"passages": [[[0, 7], [[[[5], []], [0], []], [[[5], [6]], [0], []]]]]},
    {"passages": [[[0, -1], [[[[5], []], [0], []], [[[5], [6]], [0], []]]]]},
    {"passages": [[[0, 1], [[[[5], []], [0], []], [[[5], [99]], [0], []]]]]},  # beyond the vocabulary
    {"passages": [[[0, 1], [[[[8], [8, 8]], [0], []], [[[5], [6]], [0], []]]]]},  # that begin differently
    {"passages": [[[0, 1], [[[[5], [8, 8]], [0], [3]], [[[5], [6]], [0], []]]]]},  # two ends, one of special tokens
    {"passages": [[[0, 1], [[[[5], []], [1], []], [[[5], [6]], [1], []]]]]},
    {"passages": [[[0, 1], [[[[5], [], []], [0, 1], []], [[[5], [], [6]], [0, 1], []]]]]},  # of text pairs
    {"passages": [[[0, 1], [[[[5], []], [0], 3], [[[5], [6]], [0], []]]]]},
    {"later": 1},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test__support_set__damaged_phrasing__error_and_no_answer(damage: dict[str, Any], tmp_path: Path) -> None:
    classify, path = build_task(views=VIEWS[:2]), tmp_path / "support.safetensors"
    classify.model.support.save(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["support_set"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts["phrasing"] |= damage
    save_file(tensors, path, metadata={"support_set": json.dumps(facts)})
    with pytest.raises((CorruptFileError, ValueError)) as caught:
        classify(TEXTS, examples=SupportSet.load(path))
    assert type(caught.value) in (CorruptFileError, ValueError)
    assert len(str(caught.value)) > 40


def test__support_set__without_its_phrasing__refused(tmp_path: Path) -> None:
    classify = build_task(views=VIEWS[:2])
    with pytest.raises(ValueError, match="holds no prompt and templates for 0 views: it was made by another model"):
        classify(TEXTS, examples=replace(classify.model.support, phrasing=None))


def test__backbone_traits__tokens_alike_at_the_beginning__still_no_causal_model() -> None:
    backbone = build_backbone("bert")
    with torch.no_grad():
        backbone.embeddings.word_embeddings.weight[1] = backbone.embeddings.word_embeddings.weight[0]
    assert not BackboneTraits(backbone).is_causal
    assert BackboneTraits(build_backbone("llama")).is_causal
