"""`vanilla` and `loo`: one prompt that is read once gives what every whole prompt gives, read alone."""

import logging

import pytest
import torch
from conftest import BACKBONES, WORDS, build_backbone, build_tokenizer, make_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertModel, MambaConfig, MambaModel, PreTrainedModel, T5Config, T5Model

from transformers_tart.embeddings import embed
from transformers_tart.embeddings import trunk as trunk_module
from transformers_tart.embeddings.in_context import (
    WrittenPrompt,
    leave_one_out_orders,
    read_support,
    write_prompt,
)
from transformers_tart.embeddings.trunk import Branch, Reader


TEXTS = make_texts(13, max_words=6)
LABELS = [i % 3 for i in range(13)]
NAMES = ["w1", "w2", "w3"]
QUERIES = make_texts(7, seed=5, max_words=6)
CAUSAL = [name for name in BACKBONES if name != "bert"]
LONG = {"gpt2": "n_positions", "bloom": None}  # how a config names its context, where otherwise


def build_long(model_type: str, **overrides: object) -> PreTrainedModel:
    """A backbone whose context holds the prompts of these tests."""
    name = LONG.get(model_type, "max_position_embeddings")
    return build_backbone(model_type, **({} if name is None else {name: 256}), **overrides)


def build_mamba() -> PreTrainedModel:
    """A recurrent backbone, which keeps no keys and values."""
    torch.manual_seed(0)
    return MambaModel(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=99, state_size=4)).eval()


def write(
    backbone: PreTrainedModel, texts: list = TEXTS, labels: list[int] = LABELS, **options: object
) -> WrittenPrompt:
    return write_prompt(backbone, build_tokenizer(), texts, labels, NAMES, **options)


def read_whole(
    backbone: PreTrainedModel, branch: Branch, before: tuple[int, ...] = (), pooling: str = "mean"
) -> Tensor:
    """(layers, hidden) of a span of one whole prompt, by hand."""
    with torch.no_grad():
        output = backbone(input_ids=torch.tensor([[*before, *branch.ids]]), output_hidden_states=True)
    begin, end = (len(before) + place for place in branch.span)
    spans = [hidden[0, begin:end] for hidden in output.hidden_states]
    return torch.stack([span.mean(0) if pooling == "mean" else span[-1] for span in spans])


def expected_support(backbone: PreTrainedModel, written: WrittenPrompt, protocol: str, pooling: str) -> Tensor:
    """(k, layers, hidden): a whole prompt for every example."""
    blocks = written.blocks
    orders = leave_one_out_orders(range(len(blocks)))
    rows = []
    for i, block in enumerate(blocks):
        order = orders[i] if protocol == "loo" else tuple(range(i + 1))
        before = tuple(token for j in order[:-1] for token in blocks[j].ids)
        rows.append(read_whole(backbone, Branch(block.ids, (0, block.asked)), before, pooling))
    return torch.stack(rows)


def read_queries(backbone: PreTrainedModel, written: WrittenPrompt, pooling: str) -> Tensor:
    """(n, layers, hidden): a whole prompt for every query."""
    lead = written.prompt.question.before[0]
    whole = [Branch((*lead, *branch.ids), (0, len(lead) + len(branch.ids))) for branch in ask(written)]
    return torch.stack([read_whole(backbone, branch, written.prompt.ids, pooling) for branch in whole])


def ask(written: WrittenPrompt, queries: list = QUERIES) -> list[Branch]:
    return [written.prompt.branch(parts) for parts in written.writer.parts(queries)]


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
@pytest.mark.parametrize("model_type", [*CAUSAL, "mamba"])
def test__read_support__any_causal_backbone__equals_whole_prompts_one_at_a_time(
    model_type: str, protocol: str
) -> None:
    backbone = build_mamba() if model_type == "mamba" else build_long(model_type)
    pooling = "mean" if protocol == "vanilla" else "last"
    reader, written = Reader(backbone, "all", pooling), write(backbone)
    support, trunk = read_support(reader, written, protocol)
    query = read_queries(backbone, written, pooling)
    torch.testing.assert_close(reader.embed(trunk, ask(written)), query, atol=1e-4, rtol=1e-4)
    expected = expected_support(backbone, written, protocol, pooling)
    torch.testing.assert_close(support, expected, atol=1e-4, rtol=1e-4)
    ways = {"mamba": "plain", "gpt_neo": "copied"}
    assert trunk.way == ways.get(model_type, "shared")


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gpt_neox"])
def test__read_support__eager_attention__same(model_type: str) -> None:
    backbone = build_long(model_type)
    written = write(backbone)
    expected, trunk = read_support(Reader(backbone), written, "loo")
    query = Reader(backbone).embed(trunk, ask(written))
    backbone.set_attn_implementation("eager")  # what was found for another is not taken for it
    found, trunk = read_support(Reader(backbone), written, "loo")
    assert trunk.way == "shared"
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(Reader(backbone).embed(trunk, ask(written)), query, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["copied", "plain"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test__reader__every_way__same_answer(way: str, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, written = Reader(build_long("opt"), pooling=pooling), write(build_long("opt"))
    support, trunk = read_support(reader, written, "loo")
    expected = reader.embed(trunk, ask(written))
    assert trunk.way == "shared"
    for other in {"shared", "copied"} - {way}:
        monkeypatch.setitem(trunk_module.WAYS, other, fail)
    reader = Reader(build_long("opt"), pooling=pooling)
    found, trunk = read_support(reader, written, "loo")
    assert trunk.way == way
    torch.testing.assert_close(found, support, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reader.embed(trunk, ask(written)), expected, atol=1e-4, rtol=1e-4)


def fail(*args: object) -> None:
    raise NotImplementedError


def test__reader__longer_trunk_than_tried__tried_again() -> None:
    backbone = build_long("gpt_neo", window_size=100)
    lengths = (3, 13)  # of which the window holds the first alone
    ways = [read_support(Reader(backbone), write(backbone, TEXTS[:n], LABELS[:n]), "loo")[1].way for n in lengths]
    assert ways[-1] == "copied"
    calls: list[int] = []
    backbone.register_forward_hook(lambda *args: calls.append(1))
    read_support(Reader(backbone), write(backbone), "vanilla")
    # whether it is causal, the prompt, and what all queries begin with
    assert len(calls) == 3


def test__reader__wrong_answer_of_a_way__next_way_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = trunk_module.WAYS["shared"]
    monkeypatch.setitem(trunk_module.WAYS, "shared", lambda *args: shared(*args) * 1.01)
    backbone = build_long("llama")
    assert read_support(Reader(backbone), write(backbone), "vanilla")[1].way == "copied"


def test__reader__backbone_left_as_it_was() -> None:
    backbone = build_long("bloom")
    before = set(vars(backbone))
    read_support(Reader(backbone), write(backbone), "loo")
    assert set(vars(backbone)) == before


@given(count=st.integers(1, 40))
def test__leave_one_out_orders__any_count__each_last_after_all_others(count: int) -> None:
    orders = leave_one_out_orders(range(count))
    assert list(orders) == list(range(count))
    for i, order in orders.items():
        assert order[-1] == i
        assert sorted(order) == list(range(count))


def test__embed__queries__do_not_depend_on_each_other() -> None:
    backbone = build_long("llama")
    given = [(TEXTS, LABELS, QUERIES), (TEXTS, LABELS, QUERIES[:1])]
    many, one = (embed(backbone, build_tokenizer(), *g, protocol="vanilla", label_names=NAMES) for g in given)
    assert torch.equal(many[0], one[0])
    torch.testing.assert_close(many[1][:1], one[1], atol=1e-5, rtol=1e-5)


def test__embed__seed__decides_the_order_alone() -> None:
    backbone = build_long("llama")
    first, again, other = (
        embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol="loo", seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[2].tolist() != other[2].tolist()
    assert sorted(first[2].tolist()) == sorted(LABELS)


@settings(max_examples=5)
@given(pooling=st.sampled_from(["mean", "last"]), layers=st.sampled_from([0, 1, -1]))
def test__embed__layer_index__that_layer(pooling: str, layers: int) -> None:
    backbone = build_long("gpt2")
    options = {"protocol": "loo", "pooling": pooling, "label_names": NAMES}
    support, query, labels = embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, layers=layers, **options)
    written = write(backbone, seed=42)
    reader = Reader(backbone, "all", pooling)
    every, trunk = read_support(reader, written, "loo")
    torch.testing.assert_close(support, every[:, layers], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(query, reader.embed(trunk, ask(written))[:, layers], atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [LABELS[i] for i in written.order]


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
    branch = written.prompt.branch(written.writer.parts([("w1", "w7 w8")])[0])
    assert list(branch.ids).index(seven[0]) > list(branch.ids).index(build_tokenizer()("w1")["input_ids"][0])
    with pytest.raises(ValueError, match="asks for a text and its text_pair, an input holds 1"):
        written.prompt.branch([[5]])
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
    assert len(written.prompt.ids) + written.prompt.room == 64
    assert written.prompt.room >= 16


def test__write_prompt__no_room_for_each_class__says_what_to_do() -> None:
    with pytest.raises(ValueError, match="do not hold one of each of the 12 classes; shorten them with max_length"):
        write_prompt(build_backbone("llama"), build_tokenizer(), ["w1 w2"] * 12, range(12), WORDS[:12])


@pytest.mark.parametrize(("limits", "words"), [({"max_length": 2}, 2), ({"max_characters": 5}, 2)])
def test__write_prompt__limits_of_a_text__cut_it(limits: dict[str, int], words: int) -> None:
    written = write(build_long("llama"), texts=["w5 w6 w7 w8"] * 13, **limits)
    assert {block.asked for block in written.blocks} == {written.prompt.question.length + words}


def test__branch__longer_than_its_room__cut_and_said(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_backbone("llama")
    written = write(backbone, texts=TEXTS[:3], labels=[0, 1, 2], max_length=3)
    branch = written.prompt.branch([[5] * 500])
    assert len(branch.ids) <= written.prompt.room
    assert "longer than" in all_logs.text
    support, trunk = read_support(Reader(backbone), written, "loo")
    assert torch.isfinite(Reader(backbone).embed(trunk, [branch])).all()


@pytest.mark.parametrize("template", ["{text} {label}", "w1 {text}{label}", None])
@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__embed__blank_texts__finite(template: str | None, protocol: str) -> None:
    texts, queries = ["", *TEXTS[1:]], ["", "w1", " "]
    given = (build_long("llama"), build_tokenizer(), texts, LABELS, queries)
    support, query, _ = embed(*given, protocol=protocol, template=template, label_names=NAMES)
    assert torch.isfinite(support).all()
    assert torch.isfinite(query).all()


def test__branch__special_tokens_around_a_text__taken_off() -> None:
    prompt = write(build_long("llama")).prompt
    assert prompt.branch([[1, 7, 8, 2]]) == prompt.branch([[7, 8]])
    assert prompt.branch([[1, 7, 1, 8, 2]]) == prompt.branch([[7, 1, 8]])
    assert prompt.branch([[1]]) == prompt.branch([[]])
    assert prompt.branch([[3, 7, 3]]) != prompt.branch([[7]])  # unknown words belong to the text


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__embed__bidirectional_backbone__refused_with_the_reason(protocol: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 99}
    t5 = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=99)
    for backbone in (build_backbone("bert", max_position_embeddings=256), T5Model(t5).eval()):
        with pytest.raises(ValueError, match=r'both directions.*need a causal language model. Use protocol="stream"'):
            embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol=protocol)
    causal = BertModel(BertConfig(**sizes, is_decoder=True)).eval()
    embed(causal, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol=protocol)


def test__read_support__way__is_not_shouted(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_long("gpt_neo")
    read_support(Reader(backbone), write(backbone), "vanilla")
    assert not [record for record in all_logs.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test__read_support__half_precision__shared_and_near(dtype: torch.dtype) -> None:
    expected, _ = read_support(Reader(build_long("llama")), write(build_long("llama")), "loo")
    backbone = build_long("llama").to(dtype)
    found, trunk = read_support(Reader(backbone), write(backbone), "loo")
    assert (trunk.way, found.dtype) == ("shared", torch.float32)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test__write_prompt__template_longer_than_the_context__says_so() -> None:
    with pytest.raises(ValueError, match="takes 41 tokens without any text, and the backbone's context has 64"):
        write(build_backbone("llama"), template="w1 " * 40 + "{text} w2 {label}")


def test__write_prompt__example_longer_than_half_the_context__cut_and_said(all_logs: pytest.LogCaptureFixture) -> None:
    written = write(build_backbone("llama"), texts=["w5 " * 90, "w6", "w7"], labels=[0, 1, 2])
    assert max(block.asked for block in written.blocks) <= 32
    assert "longer than the" in all_logs.text
