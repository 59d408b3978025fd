"""Prompts: what stands in them, what is cut and what is dropped."""

import pytest
import torch
from helpers.builders import WORDS, build_backbone, build_tokenizer
from helpers.prompts_given import LABELS, NAMES, TEXTS, build_long, encoder_of, read_support, write
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.in_context import write_prompt
from transformers_tart.embeddings.prompts import fit, strip
from transformers_tart.embeddings.protocols import _cut
from transformers_tart.inputs.balance import balanced_tails
from transformers_tart.inputs.examples import Examples


def test__write_prompt__default_template__blocks_of_the_paper() -> None:
    tokenizer = build_tokenizer()
    written = write(build_long("llama"), seed=3)
    text = tokenizer.decode(written.prompt.ids)
    # the word tokenizer knows neither the words of the template nor line ends
    assert text.count("<unk>") == 4 * len(TEXTS)
    for block, i in zip(written.blocks, written.order, strict=True):
        asked = tokenizer.decode(block.ids[: block.asked]).replace("<unk>", "").split()
        assert asked == TEXTS[i].split()
        assert tokenizer.decode(block.ids[block.asked :]) == NAMES[LABELS[i]]


def test__write_prompt__texts_that_hold_label_names__spans_unchanged() -> None:
    plain = write(build_long("llama"))
    names = [" ".join([NAMES[0]] * len(text.split())) for text in TEXTS]
    for block, other in zip(plain.blocks, write(build_long("llama"), texts=names).blocks, strict=True):
        assert (len(block.ids), block.asked) == (len(other.ids), other.asked)


def test__write_prompt__text_pairs__both_texts_stand_in_it() -> None:
    pairs = [(text, "w7 w8") for text in TEXTS]
    written = write(build_long("llama"), texts=pairs)
    seven = build_tokenizer()("w7 w8")["input_ids"]
    assert written.prompt.ids.count(seven[1]) >= len(TEXTS)
    query = written.prompt.continuation(written.writer.parts([("w1", "w7 w8")])[0])
    assert list(query.ids).index(seven[0]) > list(query.ids).index(build_tokenizer()("w1")["input_ids"][0])
    with pytest.raises(ValueError, match="asks for a text and its text_pair, an input holds 1"):
        written.prompt.continuation([[5]])
    with pytest.raises(ValueError, match="Some examples are text pairs and some are not"):
        write(build_long("llama"), texts=["w1", ("w2", "w3")], labels=[0, 1])
    with pytest.raises(ValueError, match="does not hold {text_pair}, and 13 of 13 examples are text pairs"):
        write(build_long("llama"), texts=pairs, template="{text} {label}")


def test__write_prompt__longer_than_the_context__newest_balanced_and_said(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_backbone("llama")  # 64 positions
    texts, labels = ["w5 w6 w7"] * 20, [0] * 10 + [1] * 10
    written = write(backbone, texts=texts, labels=labels)
    kept = sorted(written.order)
    assert 2 <= len(kept) < 20
    assert [labels[i] for i in kept].count(0) == [labels[i] for i in kept].count(1)
    assert kept == [i for i in range(20) if i % 10 >= 10 - len(kept) // 2]
    assert f"holds {len(kept)} of the 20 examples" in all_logs.text
    assert f"{20 - len(kept)} were dropped" in all_logs.text
    assert len(written.prompt.ids) + written.prompt.max_query_tokens == 64
    assert written.prompt.max_query_tokens >= 16


def test__write_prompt__no_room_for_each_class__says_what_to_do() -> None:
    with pytest.raises(ValueError, match="do not hold one of each of the 12 classes; shorten them with max_length"):
        write_prompt(
            build_backbone("llama"),
            build_tokenizer(),
            Examples(["w1 w2"] * 12, range(12), WORDS[:12]),
            EmbeddingOptions(),
        )


@pytest.mark.parametrize(("limits", "words"), [({"max_length": 2}, 2), ({"max_characters": 5}, 2)])
def test__write_prompt__limits_of_a_text__cut_it(limits: dict[str, int], words: int) -> None:
    max_characters = limits.pop("max_characters", None)
    texts = [_cut("w5 w6 w7 w8", max_characters)] * 13
    written = write(build_long("llama"), texts=texts, **limits)
    assert {block.asked for block in written.blocks} == {written.prompt.question.length + words}


def test__continuation__longer_than_its_room__cut_and_said(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_backbone("llama")
    written = write(backbone, texts=TEXTS[:3], labels=[0, 1, 2], max_length=3)
    query = written.prompt.continuation([[5] * 500])
    assert len(query.ids) <= written.prompt.max_query_tokens
    assert "longer than" in all_logs.text
    support, prefix = read_support(encoder_of(backbone), written, "loo")
    assert torch.isfinite(encoder_of(backbone).embed(prefix, [query])).all()


def test__strip__special_tokens_around_a_text__taken_off() -> None:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> w9 $A </s>", special_tokens=[("<s>", 1), ("w9", 13), ("</s>", 2)]
    )
    prompt = write_prompt(build_long("llama"), tokenizer, Examples(TEXTS, LABELS, NAMES), EmbeddingOptions()).prompt
    assert strip([1, 13, 7, 8, 2], prompt.special) == [7, 8]
    assert strip([1, 13, 7, 1, 8, 2], prompt.special) == [7, 1, 8]
    assert strip([1, 13, 2], prompt.special) == []
    assert strip([3, 7, 3], prompt.special) == [3, 7, 3]  # unknown words belong to the text


def test__write_prompt__template_longer_than_the_context__says_so() -> None:
    with pytest.raises(ValueError, match="takes 41 tokens without any text, and the backbone's context has 64"):
        write(build_backbone("llama"), template="w1 " * 40 + "{text} w2 {label}")


def test__write_prompt__example_longer_than_half_the_context__cut_and_said(all_logs: pytest.LogCaptureFixture) -> None:
    written = write(build_backbone("llama"), texts=["w5 " * 90, "w6", "w7"], labels=[0, 1, 2])
    assert max(block.asked for block in written.blocks) <= 32
    assert "longer than 28 tokens" in all_logs.text


@given(
    lengths=st.lists(st.integers(1, 9), min_size=4, max_size=30), limit=st.integers(1, 150), seed=st.integers(0, 99)
)
def test__fit__any_lengths__as_many_of_each_as_fit(lengths: list[int], limit: int, seed: int) -> None:
    labels = [0, 1, *torch.randint(0, 2, (len(lengths) - 2,), generator=torch.Generator().manual_seed(seed)).tolist()]
    possible = [kept for kept in balanced_tails(labels) if sum(lengths[i] for i in kept) <= limit]
    if possible:
        assert fit(lengths, labels, limit) == possible[0]
    else:
        with pytest.raises(ValueError, match="do not hold one of each"):
            fit(lengths, labels, limit)
