"""The gpt2 architecture: the cached prefix equals the whole sequence."""

from pathlib import Path

import pytest
import torch
from helpers.builders import build_reasoner, draw_task
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.inputs.balance import seeded_orders
from transformers_tart.reasoners.architectures.gpt2 import QUERY_BLOCK
from transformers_tart.reasoners.kv_cache import PrefixCache


DIM = 16


@given(size=st.integers(2, 33), seed=st.integers(0, 1000))
def test__gpt2__prepare_and_query__equal_the_sequence_position_by_position(size: int, seed: int) -> None:
    head = build_reasoner("gpt2").architecture
    embeddings, labels, _, _ = draw_task(size + 1, 1, dim=DIM, seed=seed)
    with torch.no_grad():
        expected = head.sequence_logits(embeddings, labels)
        for position in {1, size // 2, size} - {0}:
            state = head.prepare(embeddings[:, :position], labels[:, :position], 2)
            found = head.query(state, embeddings[:, position : position + 1])
            assert found[0, 0, 0] == 0
            torch.testing.assert_close(found[0, 0, 1], expected[0, position], atol=1e-4, rtol=1e-4)


def test__gpt2__sequence_logits__see_earlier_pairs_and_no_later_ones() -> None:
    head = build_reasoner("gpt2").architecture
    embeddings, labels, _, _ = draw_task(10, 1, dim=DIM)
    with torch.no_grad():
        before = head.sequence_logits(embeddings, labels)
        labels[:, 5] = 1 - labels[:, 5]
        after = head.sequence_logits(embeddings, labels)
    torch.testing.assert_close(after[:, :6], before[:, :6], atol=1e-5, rtol=1e-5)
    assert (after[:, 6:] != before[:, 6:]).all()


@given(order=st.permutations(range(9)), blocks=st.integers(1, 9))
def test__gpt2__queries__never_see_each_other(order: list[int], blocks: int) -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, query, _ = draw_task(dim=40)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        together = reasoner.query(state, query)[:, order]
        parts = [reasoner.query(state, block) for block in query[:, order].tensor_split(blocks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), together, atol=1e-4, rtol=1e-4)


def test__gpt2__more_queries_than_a_block__same_as_one_at_a_time() -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, query, _ = draw_task(8, QUERY_BLOCK + 3, dim=20)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        together = reasoner.query(state, query)
        for i in (0, QUERY_BLOCK - 1, QUERY_BLOCK, QUERY_BLOCK + 2):
            torch.testing.assert_close(reasoner.query(state, query[:, i : i + 1])[:, 0], together[:, i])


def test__gpt2__state__is_not_changed_by_queries() -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, query, _ = draw_task(8, 5, dim=20)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        part = state.views[0].parts[0].state
        assert isinstance(part, PrefixCache)
        assert part.length == 16
        first = reasoner.query(state, query)
        assert part.length == 16
        assert torch.equal(reasoner.query(state, query), first)


@pytest.mark.parametrize("size", [2, 3, 16, 17])
def test__gpt2__about_as_many_examples_as_components__finite(size: int) -> None:
    support, labels, query, _ = draw_task(size, dim=40)
    logits = build_reasoner("gpt2")(support, labels, query).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


@pytest.mark.parametrize(("size", "parts"), [(33, 1), (34, 2), (66, 2), (100, 4)])
def test__gpt2__more_examples_than_positions__averaged_over_subsets(size: int, parts: int) -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, query, _ = draw_task(size, dim=40)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        logits = reasoner.query(state, query)
    assert reasoner.max_support == 33
    assert len(state.views[0].parts) == parts
    assert logits.shape == (1, 9, 2)
    assert torch.isfinite(logits).all()


def test__gpt2__n_positions__is_the_last_that_the_transformer_has() -> None:
    head = build_reasoner("gpt2", n_positions=6).architecture
    embeddings, labels, _, _ = draw_task(6, 1, dim=DIM)
    assert head.sequence_logits(embeddings, labels).shape == (1, 6)
    state = head.prepare(embeddings[:, :5], labels[:, :5], 2)
    assert head.query(state, embeddings[:, 5:]).shape == (1, 1, 2)


def test__gpt2__embeddings_not_projected__says_what_to_set() -> None:
    reasoner = build_reasoner("gpt2", projection="none")
    support, labels, query, _ = draw_task(dim=40)
    with pytest.raises(ValueError, match='reads 16 dimensions, the embeddings have 40.*projection="whitened_pca"'):
        reasoner(support, labels, query)


def test__gpt2__three_classes__one_against_the_rest() -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, query, _ = draw_task(classes=3, dim=40)
    with torch.no_grad():
        found = reasoner(support, labels, query).logits
        for c in range(3):
            alone = reasoner(support, (labels == c).long(), query).logits.log_softmax(-1)[..., 1]
            torch.testing.assert_close(found[..., c], alone, atol=1e-4, rtol=1e-4)


def test__gpt2__several_orders__mean_of_their_probabilities() -> None:
    reasoner, support, labels, query = build_reasoner("gpt2", num_orders=3), *draw_task(12, 5, dim=20)[:3]
    alone = build_reasoner("gpt2")
    orders = [index[0] for index in seeded_orders(torch.arange(12)[None], 3, seed=0)]
    with torch.no_grad():
        found = reasoner(support, labels, query).logits.softmax(-1)
        expected = [alone(support[:, order], labels[:, order], query).logits.softmax(-1) for order in orders]
    assert len({tuple(order.tolist()) for order in orders}) == 3
    torch.testing.assert_close(found, torch.stack(expected).mean(0), atol=1e-5, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-4


@pytest.mark.parametrize("width", [16, 64])
def test__gpt2__new__read_in_and_read_out_as_published(width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "n_positions": 9}
    reasoner = TartReasoner(TartReasonerConfig(architecture="gpt2", **sizes))
    for layer in (reasoner.architecture.read_in, reasoner.architecture.read_out):
        limit = layer.in_features**-0.5
        assert 0.7 * limit < layer.weight.abs().max() <= limit
    reasoner.save_pretrained(tmp_path)
    loaded = TartReasoner.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in reasoner.state_dict().items())
