"""Several views of one task: what must not matter, how their weights are set, and bad input."""

from typing import Any

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, shared_reasoner
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from transformers_tart import TartReasoner
from transformers_tart.reasoners.architectures import ARCHITECTURES
from transformers_tart.reasoners.mixing import EVIDENCE_EXPONENT, mix, weigh_views


pytestmark = pytest.mark.core


SEEDS = st.integers(0, 1000)
TOLERANCE = {"atol": 2e-4, "rtol": 2e-4}
SETUPS: list[dict[str, Any]] = [
    {},
    {"max_support": 10},
    {"max_classes": 2},
    {"architecture": "gpt2"},
    {"architecture": "gpt2", "max_support": 10, "num_orders": 2},
]

Views = list[Tensor]


def draw_views(
    dims: tuple[int, ...] = (5, 12, 20), size: int = 24, queries: int = 9, classes: int = 3, seed: int = 0
) -> tuple[Views, Tensor, Views, Tensor]:
    """Views of one task, of which each is drawn with other means, and wider ones are easier."""
    tasks = [draw_task(size, queries, dim, classes, seed + 1000 * i) for i, dim in enumerate(dims)]
    return [task[0] for task in tasks], tasks[0][1], [task[2] for task in tasks], tasks[0][3]


def answer(reasoner: TartReasoner, support: object, labels: Tensor, query: object) -> Tensor:
    with torch.no_grad():
        return reasoner(support, labels, query).logits.log_softmax(-1)


@pytest.mark.parametrize("options", SETUPS)
def test__views__one_in_a_list__equal_to_the_tensor(options: dict) -> None:
    reasoner = build_reasoner(**options)
    support, labels, query, _ = draw_task(classes=3)
    with torch.no_grad():
        expected = reasoner(support, labels, query).logits
        for kind in (list, tuple):
            assert torch.equal(reasoner(kind([support]), labels, kind([query])).logits, expected)
        assert torch.equal(reasoner.query(reasoner.prepare([support], labels), query), expected)


@pytest.mark.parametrize("options", SETUPS)
def test__views__several__mixture_of_each_alone(options: dict) -> None:
    reasoner = build_reasoner(**options)
    support, labels, query, _ = draw_views()
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        weights = state.log_weights.exp()
        found = reasoner.query(state, query).exp()
    alone = [answer(reasoner, s, labels, q).exp() for s, q in zip(support, query, strict=True)]
    torch.testing.assert_close(weights.sum(0), torch.ones(1))
    torch.testing.assert_close(found, (weights[..., None, None] * torch.stack(alone)).sum(0), **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("options", SETUPS)
@given(seed=SEEDS, order=st.permutations(range(3)))
def test__views__permuted__same_answer(options: dict, seed: int, order: list[int]) -> None:
    reasoner = build_reasoner(**options)
    support, labels, query, _ = draw_views(seed=seed)
    found = answer(reasoner, [support[i] for i in order], labels, [query[i] for i in order])
    torch.testing.assert_close(found, answer(reasoner, support, labels, query), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", SETUPS)
@given(seed=SEEDS, copies=st.integers(2, 4))
def test__views__copies_of_one__same_answer_as_once(options: dict, seed: int, copies: int) -> None:
    reasoner = build_reasoner(**options)
    support, labels, query, _ = draw_task(classes=3, seed=seed)
    found = answer(reasoner, [support] * copies, labels, [query] * copies)
    torch.testing.assert_close(found, answer(reasoner, support, labels, query), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@given(seed=SEEDS)
def test__views__support_classes_and_dimensions_permuted__answer_permuted(seed: int) -> None:
    support, labels, query, _ = draw_views(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    rows, renamed = torch.randperm(24, generator=generator), torch.randperm(3, generator=generator)
    columns = [torch.randperm(x.shape[-1], generator=generator) for x in support]
    found = answer(
        shared_reasoner(),
        [x[:, rows][..., order] for x, order in zip(support, columns, strict=True)],
        renamed[labels[:, rows]],
        [x[..., order] for x, order in zip(query, columns, strict=True)],
    )
    expected = answer(shared_reasoner(), support, labels, query)
    torch.testing.assert_close(found[..., renamed].exp(), expected.exp(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("options", SETUPS)
def test__views__queries__independent(options: dict) -> None:
    reasoner = build_reasoner(**options)
    support, labels, query, _ = draw_views()
    state = reasoner.prepare(support, labels)
    with torch.no_grad():
        parts = [reasoner.query(state, [x[:, i : i + 1] for x in query]) for i in range(9)]
        torch.testing.assert_close(torch.cat(parts, 1), reasoner.query(state, query), **TOLERANCE)
        assert reasoner.query(state, [x[:, :0] for x in query]).shape == (1, 0, 3)


@pytest.mark.parametrize("options", SETUPS)
def test__views__batch_of_tasks__each_as_if_alone(options: dict) -> None:
    reasoner = build_reasoner(**options)
    tasks = [draw_views(seed=seed) for seed in range(3)]
    support, query = ([torch.cat([task[i][view] for task in tasks]) for view in range(3)] for i in (0, 2))
    together = answer(reasoner, support, torch.cat([task[1] for task in tasks]), query)
    for i, (one_support, one_labels, one_query, _) in enumerate(tasks):
        torch.testing.assert_close(together[i], answer(reasoner, one_support, one_labels, one_query)[0], **TOLERANCE)


def test__views__useless_one_beside_a_good_one__costs_little() -> None:
    costs = []
    for seed in range(8):
        support, labels, query, truth = draw_task(64, 200, classes=2, seed=seed)
        generator = torch.Generator().manual_seed(seed + 99)
        noise = [torch.randn(1, size, 12, generator=generator) for size in (64, 200)]
        alone = answer(shared_reasoner(), support, labels, query)
        beside = answer(shared_reasoner(), [noise[0], support], labels, [noise[1], query])
        losses = [nn.functional.nll_loss(x[0], truth[0]).item() for x in (alone, beside)]
        costs.append(losses[1] - losses[0])
    assert sum(costs) / len(costs) < 0.008
    assert max(costs) < 0.02


def test__views__better_one__larger_weight_with_more_examples() -> None:
    good = []
    for size in (8, 32, 128):
        support, labels, _, _ = draw_task(size, dim=12, gap=0.5)
        noise = torch.randn(1, size, 12, generator=torch.Generator().manual_seed(3))
        good.append(shared_reasoner().prepare([support, noise], labels).log_weights[0].exp().item())
    assert 0.4 < good[0] < good[1] < good[2]
    assert good[2] > 0.99


def test__views__architecture_without_likelihood__equal_weights() -> None:
    support, labels, _, _ = draw_views()
    weights = build_reasoner("gpt2").prepare(support, labels).log_weights.exp()
    torch.testing.assert_close(weights, torch.full((3, 1), 1 / 3))


def test__views__one_against_the_rest__held_out_probabilities_of_the_binary_tasks() -> None:
    reasoner = build_reasoner(max_classes=2)
    support, labels, _, _ = draw_task(classes=4)
    found = reasoner.prepare(support, labels).views[0].held_out
    alone = [reasoner.prepare(support, (labels == c).long()).views[0].held_out[..., 1] for c in range(4)]
    torch.testing.assert_close(found, torch.stack(alone, -1).log_softmax(-1), **TOLERANCE)


def test__views__subsets__held_out_predictions_in_the_order_of_the_examples() -> None:
    reasoner = build_reasoner(max_support=10)
    support, labels, _, _ = draw_task(25, classes=2)
    view = reasoner.prepare(support, labels).views[0]
    assert len(view.parts) == 3
    for part in view.parts:
        expected = part.state.held_out.log_softmax(-1)
        torch.testing.assert_close(view.held_out[0, part.index[0]], expected[0])


@given(
    rows=st.lists(st.lists(st.floats(-50, 0), min_size=2, max_size=2), min_size=1, max_size=5),
    size=st.integers(2, 2000),
)
def test__weigh_views__any_likelihoods__power_of_the_joint_likelihood(rows: list[list[float]], size: int) -> None:
    log_likelihoods = torch.tensor(rows)
    found = weigh_views(log_likelihoods, size)
    torch.testing.assert_close(found.exp().sum(0), torch.ones(2))
    ratios = EVIDENCE_EXPONENT * size * (log_likelihoods - log_likelihoods[:1])
    torch.testing.assert_close(found - found[:1], ratios, atol=1e-2, rtol=1e-4)


def test__mix__weight_of_zero__gradients_finite() -> None:
    logits = torch.randn(2, 1, 4, 3, requires_grad=True)
    log_likelihoods = torch.tensor([[0.0], [-1e4]], requires_grad=True)
    mixed = mix(list(logits), list(weigh_views(log_likelihoods, 1000)))
    torch.testing.assert_close(mixed, logits[0].log_softmax(-1))
    mixed.sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(log_likelihoods.grad).all()


def test__views__loss__gradients_of_likelihood_and_predictions() -> None:
    reasoner = build_reasoner()
    support, labels, query, truth = draw_views()
    reasoner(support, labels, query, query_labels=truth).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in reasoner.parameters())
    reasoner.zero_grad()
    reasoner.prepare(support, labels).log_weights[0].sum().backward()
    assert reasoner.architecture.prior.weight.grad.abs().max() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test__views__state_moved__same_answer(architecture: str) -> None:
    reasoner = build_reasoner(architecture)
    support, labels, query, _ = draw_views()
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        assert torch.equal(reasoner.query(state.to("cpu"), query), reasoner.query(state, query))
    moved = state.to("meta")
    assert moved.log_weights.device.type == "meta"
    assert {part.index.device.type for view in moved.views for part in view.parts} == {"meta"}


class Query(nn.Module):
    """The query of a fixed support set."""

    def __init__(self, reasoner: TartReasoner, support: Views, labels: Tensor):
        super().__init__()
        self.reasoner = reasoner
        self.state = reasoner.prepare(support, labels)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.reasoner.query(self.state, (first, second))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("options", [{}, {"max_support": 10}, {"max_classes": 2}])
def test__views__exported_and_traced__same_answer(options: dict) -> None:
    support, labels, query, _ = draw_views((5, 12))
    with torch.no_grad():
        module = Query(build_reasoner(**options), support, labels).eval().requires_grad_(False)
        shapes = {1: torch.export.Dim("queries", min=2, max=4096)}
        program = torch.export.export(module, tuple(query), dynamic_shapes=(shapes, shapes)).module()
        more = [x.repeat(1, 3, 1) for x in query]
        torch.testing.assert_close(program(*more), module(*more), atol=1e-5, rtol=1e-5)
        traced = torch.jit.trace(lambda first, second: module(first, second), tuple(query))
        torch.testing.assert_close(traced(*query), module(*query), atol=1e-5, rtol=1e-5)


SUPPORT, LABELS, QUERY, _ = draw_views((5, 12))


@pytest.mark.parametrize(
    ("support", "error", "message"),
    [
        ([], ValueError, "no support embeddings: the list is empty; give one tensor, or one for each view"),
        ([SUPPORT[0], SUPPORT[1][:, :23]], ValueError, r"view 2 of 2 must be .* got \(1, 23, 12\) and \(1, 24\)"),
        ([SUPPORT[0].expand(2, -1, -1), SUPPORT[1]], ValueError, r"view 1 of 2 must be .* got \(2, 24, 5\)"),
        ([SUPPORT[0], SUPPORT[1][0]], ValueError, r"view 2 of 2 must be .* got \(24, 12\)"),
        ([SUPPORT[0], SUPPORT[1] * torch.nan], ValueError, "support embeddings of view 2 of 2 hold NaN"),
        ([SUPPORT[0], SUPPORT[1] * 0], ValueError, "of view 2 of 2 are equal.*; leave this view out"),
        ([SUPPORT[0], None], TypeError, "view 2 of 2 are NoneType; they must be a torch.Tensor"),
        ([SUPPORT[0], SUPPORT[1].long()], TypeError, "view 2 of 2 are torch.int64"),
        ([SUPPORT], TypeError, "support embeddings are list"),
        (iter(SUPPORT), TypeError, "support embeddings are list_iterator.*or a list of such tensors"),
    ],
)
def test__prepare__bad_views__named(support: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        shared_reasoner().prepare(support, LABELS)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([], "no query embeddings: the list is empty"),
        (QUERY[0], "number of views is 1 in the queries and 2 in the support set: give .* in the same order"),
        ([*QUERY, QUERY[0]], "number of views is 3 in the queries and 2 in the support set"),
        (QUERY[::-1], "query embeddings of view 1 of 2 have 12 dimensions, the support set has 5"),
        ([QUERY[0], QUERY[1][:, :4]], "view 2 of 2 are of 4 queries, those of the first view of 9: embed the same"),
        ([QUERY[0], QUERY[1].expand(2, -1, -1)], r"view 2 of 2 must be .*batch of 1 .* got \(2, 9, 12\)"),
        ([QUERY[0], QUERY[1] * torch.inf], "query embeddings of view 2 of 2 hold NaN or infinite"),
    ],
)
def test__query__bad_views__named(query: Any, message: str) -> None:
    state = shared_reasoner().prepare(SUPPORT, LABELS)
    with pytest.raises(ValueError, match=message):
        shared_reasoner().query(state, query)
