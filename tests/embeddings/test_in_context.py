"""`vanilla` and `loo`: one prompt that is read once gives what every whole prompt gives, read alone."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer
from helpers.prompts_given import (
    CAUSAL,
    LABELS,
    NAMES,
    PHI3,
    POOLED,
    QUERIES,
    TEXTS,
    ask,
    build_long,
    build_mamba,
    encoder_of,
    expected_support,
    read_queries,
    read_support,
    read_whole,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    Phi3Config,
    Phi3Model,
    T5Config,
    T5Model,
)

from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings import embed, encode_texts
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.in_context import leave_one_out_orders
from transformers_tart.embeddings.prefix_strategies import STRATEGIES
from transformers_tart.embeddings.prompts import Continuation


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
@pytest.mark.parametrize("model_type", [*CAUSAL, "mamba"])
def test__read_support__any_causal_backbone__equals_whole_prompts_one_at_a_time(
    model_type: str, protocol: str
) -> None:
    backbone = build_mamba() if model_type == "mamba" else build_long(model_type)
    pooling = "mean" if protocol == "vanilla" else "last"
    encoder, written = encoder_of(backbone, "all", pooling), write(backbone)
    support, prefix = read_support(encoder, written, protocol)
    query = read_queries(backbone, written, pooling)
    torch.testing.assert_close(encoder.embed(prefix, ask(written)), query, atol=1e-4, rtol=1e-4)
    expected = expected_support(backbone, written, protocol, pooling)
    torch.testing.assert_close(support, expected, atol=1e-4, rtol=1e-4)
    strategies = {"mamba": "off", "gpt_neo": "batched"}
    assert prefix.strategy == strategies.get(model_type, "packed")


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gpt_neox"])
def test__read_support__eager_attention__same(model_type: str) -> None:
    backbone = build_long(model_type)
    written = write(backbone)
    encoder = encoder_of(backbone)
    expected, prefix = read_support(encoder, written, "loo")
    query = encoder.embed(prefix, ask(written))
    backbone.set_attn_implementation("eager")  # what was found for another is not taken for it
    found, prefix = read_support(encoder, written, "loo")
    assert prefix.strategy == "packed"
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.embed(prefix, ask(written)), query, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
@pytest.mark.parametrize("pooling", POOLED)
def test__read_support__any_pooling__equals_whole_prompts_one_at_a_time(pooling: str, protocol: str) -> None:
    backbone = build_long("llama")
    encoder, written = encoder_of(backbone, "all", pooling), write(backbone)
    support, prefix = read_support(encoder, written, protocol)
    query = read_queries(backbone, written, pooling)
    torch.testing.assert_close(encoder.embed(prefix, ask(written)), query, atol=1e-4, rtol=1e-4)
    expected = expected_support(backbone, written, protocol, pooling)
    torch.testing.assert_close(support, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["batched", "off"])
@pytest.mark.parametrize("pooling", POOLED)
def test__prefix_encoder__every_strategy__same_answer(
    strategy: str, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, written = encoder_of(build_long("opt"), pooling=pooling), write(build_long("opt"))
    support, prefix = read_support(encoder, written, "loo")
    expected = encoder.embed(prefix, ask(written))
    assert prefix.strategy == "packed"
    for other in {"packed", "batched"} - {strategy}:
        monkeypatch.setitem(STRATEGIES, other, fail)
    encoder = encoder_of(build_long("opt"), pooling=pooling)
    found, prefix = read_support(encoder, written, "loo")
    assert prefix.strategy == strategy
    torch.testing.assert_close(found, support, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder.embed(prefix, ask(written)), expected, atol=1e-4, rtol=1e-4)


def fail(*args: object) -> None:
    raise NotImplementedError


def test__prefix_encoder__longer_prefix_than_tried__tried_again() -> None:
    backbone = build_long("gpt_neo", window_size=100)
    encoder = encoder_of(backbone)
    lengths = (3, 13)  # of which the window holds the first alone
    found = [read_support(encoder, write(backbone, TEXTS[:n], LABELS[:n]), "loo")[1] for n in lengths]
    assert found[-1].strategy == "batched"
    calls: list[int] = []
    backbone.register_forward_hook(lambda *args: calls.append(1))
    read_support(encoder, write(backbone), "vanilla")
    # the prompt, and what all queries begin with; that it is causal is known
    assert len(calls) == 2


def test__prefix_encoder__wrong_answer_of_a_strategy__next_strategy_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = STRATEGIES["packed"]
    monkeypatch.setitem(STRATEGIES, "packed", lambda *args: shared(*args) * 1.01)
    backbone = build_long("llama")
    assert read_support(encoder_of(backbone), write(backbone), "vanilla")[1].strategy == "batched"


@pytest.mark.parametrize("strategy", ["packed", "batched", "off"])
def test__prefix_encoder__given_strategy__taken_without_a_probe(strategy: str) -> None:
    backbone = build_long("llama")
    written = write(backbone)
    encoder = encoder_of(backbone)
    expected, prefix = read_support(encoder, written, "loo")
    fixed = replace(encoder_of(backbone), prefix_sharing=strategy)
    found, own = read_support(fixed, written, "loo")
    assert own.strategy == strategy
    assert fixed.traits.prefix_sharing == {}
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    query = encoder.embed(prefix, ask(written))
    torch.testing.assert_close(fixed.embed(own, ask(written)), query, atol=1e-4, rtol=1e-4)


def test__prefix_encoder__chosen_strategy__logged_once(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_long("llama")
    encoder = encoder_of(backbone)
    for count in (5, 13):
        read_support(encoder, write(backbone, TEXTS[:count], LABELS[:count]), "vanilla")
    chosen = [record for record in all_logs.records if "prefix_sharing" in record.getMessage()]
    assert [(record.levelno, record.getMessage()) for record in chosen] == [
        (logging.INFO, "LlamaModel: prefix_sharing='packed'.")
    ]


def test__prefix_encoder__backbone_left_as_it_was() -> None:
    backbone = build_long("bloom")
    before = set(vars(backbone))
    read_support(encoder_of(backbone), write(backbone), "loo")
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


def test__embed__traits_of_an_earlier_call__no_second_probe() -> None:
    backbone, calls = build_long("llama"), []
    traits = BackboneTraits(backbone)
    backbone.register_forward_hook(lambda *args: calls.append(1))
    found, counts = [], []
    for _ in range(2):
        calls.clear()
        found.append(embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol="vanilla", traits=traits))
        counts.append(len(calls))
    assert counts[1] < counts[0]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    with pytest.raises(ValueError, match="traits are those of another backbone"):
        embed(build_long("llama"), build_tokenizer(), TEXTS, LABELS, QUERIES, protocol="vanilla", traits=traits)
    with pytest.raises(TypeError, match="traits is 3"):
        embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, traits=3)


def test__embed__seed__decides_the_order_alone() -> None:
    backbone = build_long("llama")
    first, again, other = (
        embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol="loo", seed=seed) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[2].tolist() != other[2].tolist()
    assert sorted(first[2].tolist()) == sorted(LABELS)


@pytest.mark.slow
@settings(max_examples=5)
@given(pooling=st.sampled_from(list(POOLED)), layers=st.sampled_from([0, 1, -1]))
def test__embed__layer_index__that_layer(pooling: str, layers: int) -> None:
    backbone = build_long("gpt2")
    options = {"protocol": "loo", "pooling": pooling, "label_names": NAMES}
    support, query, labels = embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, layers=layers, **options)
    written = write(backbone, seed=42)
    encoder = encoder_of(backbone, "all", pooling)
    every, prefix = read_support(encoder, written, "loo")
    torch.testing.assert_close(support, every[:, layers], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(query, encoder.embed(prefix, ask(written))[:, layers], atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [LABELS[i] for i in written.order]


@pytest.mark.parametrize("template", ["{text} {label}", "w1 {text}{label}", None])
@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__embed__blank_texts__finite(template: str | None, protocol: str) -> None:
    texts, queries = ["", *TEXTS[1:]], ["", "w1", " "]
    given = (build_long("llama"), build_tokenizer(), texts, LABELS, queries)
    support, query, _ = embed(*given, protocol=protocol, template=template, label_names=NAMES)
    assert torch.isfinite(support).all()
    assert torch.isfinite(query).all()


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__embed__bidirectional_backbone__refused_with_the_reason(protocol: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 99}
    t5 = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=99)
    for backbone in (build_backbone("bert", max_position_embeddings=256), T5Model(t5).eval()):
        with pytest.raises(ValueError, match=r'both directions.*need a causal language model. Use protocol="stream"'):
            embed(backbone, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol=protocol)
    causal = BertModel(BertConfig(**sizes, is_decoder=True)).eval()
    embed(causal, build_tokenizer(), TEXTS, LABELS, QUERIES, protocol=protocol)


def test__read_support__strategy__is_not_shouted(all_logs: pytest.LogCaptureFixture) -> None:
    backbone = build_long("gpt_neo")
    read_support(encoder_of(backbone), write(backbone), "vanilla")
    assert not [record for record in all_logs.records if record.levelno > logging.INFO]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test__read_support__half_precision__packed_and_near(dtype: torch.dtype) -> None:
    expected, _ = read_support(encoder_of(build_long("llama")), write(build_long("llama")), "loo")
    backbone = build_long("llama").to(dtype)
    found, prefix = read_support(encoder_of(backbone), write(backbone), "loo")
    assert (prefix.strategy, found.dtype) == ("packed", torch.float32)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test__read_support__layer_before_the_window_matters__strategy_of_all_layers() -> None:
    backbone = build_long("gpt_neo")
    for layers in (0, 1, 2):
        _, prefix = read_support(encoder_of(backbone, layers), write(backbone), "vanilla")
        assert prefix.strategy == "batched"


def test__read_support__outlier_dimensions__do_not_hide_a_wrong_strategy() -> None:
    backbone = build_long("gpt_neo")
    with torch.no_grad():
        backbone.h[0].mlp.c_proj.bias[0], backbone.h[0].mlp.c_proj.bias[1] = 1000, -1000
    assert read_support(encoder_of(backbone.bfloat16()), write(backbone), "vanilla")[1].strategy == "batched"


@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
@pytest.mark.parametrize("switch", [30, 100, 120])
def test__embed__rotation_that_depends_on_the_length__each_text_as_if_alone(protocol: str, switch: int) -> None:
    factors = {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [3.0, 2.0, 4.0, 5.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": switch, **factors}
    config = Phi3Config(**PHI3, rope_parameters=rope)
    torch.manual_seed(0)
    backbone = Phi3Model(config).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(0.0, 0.3) if parameter.dim() > 1 else None
    queries = [*QUERIES, "w5 " * 40]
    options = {"protocol": protocol, **({} if protocol == "stream" else {"label_names": NAMES})}
    support, query, _ = embed(backbone, build_tokenizer(), TEXTS, LABELS, queries, **options)
    if protocol == "stream":
        alone = [encode_texts(backbone, build_tokenizer(), [text])[0] for text in queries]
    else:
        written = write(backbone, seed=42)
        question = written.prompt.question.before[0]
        whole = [Continuation((*question, *b.ids), ((0, len(question) + len(b.ids)),)) for b in ask(written, queries)]
        alone = [read_whole(backbone, query, written.prompt.ids)[-1:] for query in whole]
        expected = expected_support(backbone, written, protocol, "mean")[:, -1]
        if sum(len(block.ids) for block in written.blocks) <= switch or protocol == "loo":
            torch.testing.assert_close(support, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(query, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test__prefix_encoder__four_threads_on_linear_biases__right_answers() -> None:
    backbone = build_long("bloom")
    encoder, written = encoder_of(backbone), write(backbone)
    expected, _ = read_support(encoder, written, "loo")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_support(encoder, written, "loo")[0], range(12)))
    for support in found:
        torch.testing.assert_close(support, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test__prefix_encoder__out_of_memory__remembered_by_the_batcher(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_long("llama")
    encoder, written = encoder_of(backbone), write(backbone)
    _, prefix = read_support(encoder, written, "vanilla")
    packed, failures = STRATEGIES["packed"], []

    def small(backbone: object, views: object, prefix: object, continuations: list[Continuation]) -> Tensor:
        if sum(len(query.ids) for query in continuations) > 20:
            failures.append(len(continuations))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return packed(backbone, views, prefix, continuations)

    monkeypatch.setitem(STRATEGIES, "packed", small)
    batcher = Batcher(1000)
    first, again = (encoder.embed(prefix, ask(written), batcher) for _ in range(2))
    assert torch.equal(first, again)
    assert 0 < len(failures) <= 6
