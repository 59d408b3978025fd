"""Long texts are truncated as the tokenizer would, and nothing that threads share is set for it."""

import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.builders import build_backbone, build_tokenizer, make_texts
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerBase

from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.in_context import write_prompt
from transformers_tart.embeddings.prompts import Prompt
from transformers_tart.evaluation.prompting import _shorten
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.texts import Text
from transformers_tart.inputs.tokenization import encode, tokenize


pytestmark = pytest.mark.core


SPECIAL = [("<s>", 1), ("</s>", 2)]
PROCESSORS = {
    "gpt2": None,
    "bert": processors.BertProcessing(("</s>", 2), ("<s>", 1)),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
    "t5": processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=SPECIAL),
    "llama": processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=SPECIAL),
    "xlnet": processors.TemplateProcessing(
        single="$A:0 </s>:0 <s>:2", pair="$A:0 </s>:0 $B:1 </s>:1 <s>:2", special_tokens=SPECIAL
    ),
    "chain": processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=SPECIAL),
        ]
    ),
}
IN_PYTHON = {"byt5": ByT5Tokenizer, "canine": CanineTokenizer}
# a text may hold what looks like a special token
TEXTS = st.lists(st.sampled_from(["w1", "w2", "w3", "<s>", "</s>", "word"]), max_size=14).map(" ".join)


def make_tokenizer(kind: str, side: str = "right") -> PreTrainedTokenizerBase:
    if kind in IN_PYTHON:
        return IN_PYTHON[kind](truncation_side=side)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = build_tokenizer(truncation_side=side, model_input_names=names)
    if PROCESSORS[kind] is not None:
        tokenizer.backend_tokenizer.post_processor = PROCESSORS[kind]
    return tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*PROCESSORS, *IN_PYTHON])
@pytest.mark.parametrize("side", ["right", "left"])
@given(data=st.data())
def test__tokenize__long_text__as_the_tokenizer_truncates(kind: str, side: str, data: st.DataObject) -> None:
    tokenizer = make_tokenizer(kind, side)
    texts = data.draw(st.lists(TEXTS | st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
    limit = data.draw(st.integers(5, 24))
    for text, row in zip(texts, tokenize(tokenizer, texts, limit), strict=True):
        first, second = ([text], None) if isinstance(text, str) else ([text[0]], [text[1]])
        expected = copy.deepcopy(tokenizer)(first, second, truncation=True, max_length=limit)
        if expected["input_ids"][0]:
            assert row == {name: list(expected[name][0]) for name in row}
            assert set(row) == set(expected) - {"attention_mask"}
    if kind in PROCESSORS:
        assert tokenizer.backend_tokenizer.truncation is None
        assert tokenizer.backend_tokenizer.padding is None


@pytest.mark.parametrize("kind", ["bert", "roberta", "byt5"])
@pytest.mark.parametrize("text", ["w1 w2 w3 w4 w5", ("w1 w2 w3 w4 w5", "w6 w7")], ids=["single", "pair"])
def test__tokenize__no_room_beside_the_special_tokens__said(kind: str, text: Text) -> None:
    tokenizer = make_tokenizer(kind)
    added = tokenizer.num_special_tokens_to_add(pair=not isinstance(text, str))
    for limit in range(1, added + 1):
        with pytest.raises(ValueError, match=f"truncated to {limit} tokens.*needs {added}.*max_length to {added + 1}"):
            tokenize(tokenizer, [text], limit)
    assert len(tokenize(tokenizer, [text], added + 1)[0]["input_ids"]) == added + 1


def test__tokenize__no_texts__no_rows() -> None:
    assert tokenize(build_tokenizer(), [], 5) == []


def test__encode__truncation_and_padding_of_the_tokenizer__whole() -> None:
    tokenizer = make_tokenizer("bert")
    texts = ["w1 " * 9, "w2"]
    expected = encode(tokenizer, texts)["input_ids"]
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    assert encode(tokenizer, texts)["input_ids"] == expected


def test__encode__another_thread_sets_truncation_and_padding__whole() -> None:
    tokenizer = make_tokenizer("bert")
    texts = make_texts(20, max_words=30)
    expected = encode(tokenizer, texts)["input_ids"]
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            tokenizer(texts[:2], truncation=True, padding="max_length", max_length=5)

    with ThreadPoolExecutor(3) as pool:
        disturbing = [pool.submit(disturb) for _ in range(2)]
        try:
            assert all(encode(tokenizer, texts)["input_ids"] == expected for _ in range(150))
        finally:
            done.set()
        assert all(future.result() is None for future in disturbing)


@pytest.mark.parametrize("side", ["right", "left"])
def test__prompt__long_texts__cut_on_the_side_of_the_tokenizer(side: str) -> None:
    tokenizer = build_tokenizer(truncation_side=side)
    texts = ["w1 w2 w3 w4", "w5 w6 w7 w8"]
    written = write_prompt(
        build_backbone("llama"), tokenizer, Examples(texts, [0, 1], ("w90", "w91")), EmbeddingOptions(max_length=2)
    )
    kept = [tokenizer("w3 w4" if side == "left" else "w1 w2")["input_ids"], tokenizer("w7 w8")["input_ids"]]
    again = Prompt.from_json(json.loads(json.dumps(written.prompt.as_json())))
    assert again == written.prompt
    assert tuple(kept[0]) == again.continuation([tokenizer(texts[0])["input_ids"]], 2).ids[:2]
    assert str(kept[0])[1:-1] in str(written.prompt.ids)
    assert (str(kept[1])[1:-1] in str(written.prompt.ids)) == (side == "left")


def test__prompt__file_without_a_side_or_with_another__right_or_said() -> None:
    fields = {"ids": [1], "question": [[[2]], [3], 0], "special": [], "room": None}
    assert Prompt.from_json(fields).truncation_side == "right"
    with pytest.raises(ValueError, match="truncation_side is 'up'; it must be one of"):
        Prompt.from_json({**fields, "truncation_side": "up"})


@pytest.mark.parametrize(("side", "expected"), [("right", "w1 w2"), ("left", "w3 w4")])
def test__prompting__long_text__cut_on_the_side_of_the_tokenizer(side: str, expected: str) -> None:
    assert _shorten(build_tokenizer(truncation_side=side), ["w1 w2 w3 w4"], 2) == [expected]
