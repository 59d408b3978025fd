"""Copies of examples, which are held out together, and weights of examples, against copies and definitions."""

import pytest
import torch
from helpers.builders import build_reasoner, draw_task
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart import TartReasoner
from transformers_tart.reasoners.architectures.rows import PLAIN, Rows
from transformers_tart.reasoners.architectures.smoothers import (
    Geometry,
    Smoothers,
    half_squared_distances,
    hold_out,
    hold_out_centered,
    ridge_inverse,
)


SHARPNESS, STRENGTHS = [0.0, 1.0], [0.05, 1.0]


def draw(seed: int, size: int = 9, copies: tuple[int, ...] = (3, 1, 2, 1, 1, 1, 1, 1, 1)) -> tuple[Tensor, Tensor]:
    """Return distinct rows (1, size, dim) float64, and the number (1, size) of copies of each."""
    support = draw_task(size, seed=seed)[0].double()
    return support, torch.tensor([copies[:size]], dtype=torch.float64)


def repeat(x: Tensor, counts: Tensor) -> Tensor:
    return x.repeat_interleave(counts[0].long(), dim=1)


def find(support: Tensor) -> Rows:
    distances = half_squared_distances(support, support)
    distances.diagonal(dim1=1, dim2=2).zero_()
    return PLAIN.with_copies(support, distances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test__rows__copies__found_and_near_rows_are_none(dtype: torch.dtype) -> None:
    support = Geometry.of(draw_task(8)[0].to(dtype)).support
    assert find(support) == PLAIN
    assert find(torch.cat([support, support[:, :1] + 3e-3], dim=1)) == PLAIN
    found = find(torch.cat([support, support[:, 2:3], support[:, 2:3] * (1 + 1e-6)], dim=1)).copies
    expected = torch.eye(10, dtype=dtype)
    for i, j in [(2, 8), (2, 9), (8, 9)]:
        expected[i, j] = expected[j, i] = 1
    torch.testing.assert_close(found, expected[None])


@given(seed=st.integers(0, 1000), strength=st.floats(0.02, 3.0))
def test__hold_out__copies__equals_refitting_without_all_of_them(seed: int, strength: float) -> None:
    distinct, counts = draw(seed)
    support = repeat(distinct, counts)
    size = support.shape[1]
    owner = repeat(torch.arange(distinct.shape[1])[None], counts)[0]
    rows = Rows(copies=(owner[:, None] == owner).double()[None])
    values = torch.randn(1, size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gram, ridge = support @ support.transpose(1, 2), strength * size**0.5
    inverse = ridge_inverse(gram, strength)
    found = hold_out(inverse @ values, values, inverse, rows)
    for i in range(size):
        rest = owner != owner[i]
        kept = gram[0][rest][:, rest] + ridge * torch.eye(int(rest.sum()), dtype=torch.float64)
        expected = gram[0, i, rest] @ torch.linalg.solve(kept, values[0, rest])
        torch.testing.assert_close(found[0, i], expected)


@given(seed=st.integers(0, 1000), strength=st.floats(0.02, 3.0))
def test__hold_out_centered__copies__equals_refitting_with_an_intercept(seed: int, strength: float) -> None:
    distinct, counts = draw(seed)
    support = repeat(distinct, counts)
    support = support - support.mean(1, keepdim=True)
    size = support.shape[1]
    owner = repeat(torch.arange(distinct.shape[1])[None], counts)[0]
    rows = Rows(copies=(owner[:, None] == owner).double()[None])
    values = torch.randn(1, size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = values - values.mean(1, keepdim=True)
    gram, ridge = support @ support.transpose(1, 2), strength * size**0.5
    inverse = ridge_inverse(gram, strength)
    found = hold_out_centered(inverse @ values, values, inverse, ridge, rows)
    for i in range(size):
        rest = owner != owner[i]
        kept, own = support[0, rest], values[0, rest]
        center, mean = kept.mean(0), own.mean(0)
        system = (kept - center) @ (kept - center).T + ridge * torch.eye(len(kept), dtype=torch.float64)
        expected = (support[0, i] - center) @ (kept - center).T @ torch.linalg.solve(system, own - mean)
        torch.testing.assert_close(found[0, i], expected)


@pytest.mark.parametrize("centered", [False, True])
def test__smoothers__weights__equal_copies(centered: bool) -> None:
    distinct, counts = draw(3)
    copied = repeat(distinct, counts)
    values = torch.randn(1, 9, len(SHARPNESS) * len(STRENGTHS), 2, dtype=torch.float64)
    values = values - (counts[..., None, None] * values).sum(1, keepdim=True) / counts.sum()
    results = []
    for support, targets, rows in [(distinct, values, Rows(counts)), (copied, repeat(values, counts), PLAIN)]:
        geometry = Geometry.of(support, rows)
        distances = half_squared_distances(geometry.support, geometry.support)
        rows = rows.with_copies(geometry.support, distances)
        smoothers = Smoothers.fit(geometry, distances, SHARPNESS, STRENGTHS, rows)
        results.append((smoothers.solve_centered if centered else smoothers.solve)(targets)[1])
    torch.testing.assert_close(repeat(results[0], counts), results[1])


def reasoners() -> list[TartReasoner]:
    random = build_reasoner("kernel", weighing_size=8)
    with torch.no_grad():
        for weight in random.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return [random.eval(), TartReasoner.from_pretrained("kernel")]


def given_task(
    num_views: int, has_hints: bool
) -> tuple[list[Tensor], Tensor, Tensor | None, list[Tensor], Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(12)[None] % 3
    means = torch.randn(num_views, 3, 6, generator=generator, dtype=torch.float64)
    views = [
        means[i][labels] + torch.randn(1, 12, 6, generator=generator, dtype=torch.float64) for i in range(num_views)
    ]
    queries = [torch.randn(1, 5, 6, generator=generator, dtype=torch.float64) for _ in range(num_views)]
    if not has_hints:
        return views, labels, None, queries, None
    hints, of_queries = (torch.randn(1, n, 2, 3, generator=generator, dtype=torch.float64) for n in (12, 5))
    return views, labels, hints, queries, of_queries


def logits(
    reasoner: TartReasoner,
    views: list,
    labels: Tensor,
    hints: Tensor | None,
    queries: list,
    of_queries: Tensor | None,
    weights: Tensor | None = None,
) -> Tensor:
    with torch.no_grad():
        state = reasoner.prepare(views, labels, hints, num_labels=3, support_weights=weights)
        return reasoner.query(state, queries, of_queries).log_softmax(-1)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(("num_views", "has_hints"), [(1, False), (2, False), (2, True)])
def test__reasoner__integer_weights__equal_copies_in_any_order(which: int, num_views: int, has_hints: bool) -> None:
    reasoner = reasoners()[which].double()
    views, labels, hints, queries, of_queries = given_task(num_views, has_hints)
    counts = torch.tensor([[1, 3, 1, 2, 1, 1, 4, 1, 1, 1, 2, 1]], dtype=torch.float64)
    weighted = logits(reasoner, views, labels, hints, queries, of_queries, counts)
    order = torch.randperm(int(counts.sum()), generator=torch.Generator().manual_seed(2))
    copied = [repeat(view, counts)[:, order] for view in views]
    hints = None if hints is None else repeat(hints, counts)[:, order]
    found = logits(reasoner, copied, repeat(labels, counts)[:, order], hints, queries, of_queries)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, weighted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("which", [0, 1])
def test__reasoner__all_weights_one__as_without_weights(which: int) -> None:
    task = given_task(2, True)
    reasoner = reasoners()[which].double()
    torch.testing.assert_close(logits(reasoner, *task, torch.ones(1, 12)), logits(reasoner, *task))


@pytest.mark.parametrize("which", [0, 1])
def test__reasoner__copies_of_random_labels__no_evidence(which: int) -> None:
    reasoner, generator = reasoners()[which], torch.Generator().manual_seed(0)
    support, query = torch.randn(1, 24, 16, generator=generator), torch.randn(1, 50, 16, generator=generator)
    labels = torch.arange(24)[None] % 2
    alone = logits(reasoner, [support], labels, None, [query], None)[..., :2]
    copied = logits(reasoner, [support.repeat(1, 2, 1)], labels.repeat(1, 2), None, [query], None)[..., :2]
    # were each held out alone, its copy would show its label, and the confidence would rise
    assert copied.exp().amax(-1).mean() < alone.exp().amax(-1).mean() + 0.05


def test__kernel__copies__leave_one_out_predictions_of_the_rest() -> None:
    reasoner = reasoners()[1].double()
    support = draw_task(12, seed=4)[0].double()
    labels = torch.arange(12)[None] % 2
    copied, of_copied = torch.cat([support, support[:, :1]], dim=1), torch.cat([labels, labels[:, :1]], dim=1)
    flipped = of_copied.clone()
    flipped[:, -1] = 1 - flipped[:, -1]
    held_out = [
        reasoner.architecture.held_out(reasoner.architecture.prepare(copied, each, 2)) for each in (of_copied, flipped)
    ]
    # one prediction for both copies, whatever their labels
    for each in held_out:
        torch.testing.assert_close(each[0, 0], each[0, -1])


def test__kernel__all_rows_but_one_copies__finite() -> None:
    reasoner = reasoners()[1]
    support = torch.cat([torch.ones(1, 5, 4), torch.zeros(1, 1, 4)], dim=1)
    labels = torch.tensor([[0, 0, 1, 1, 0, 1]])
    assert logits(reasoner, [support], labels, None, [torch.randn(1, 3, 4)], None).isfinite().all()
    with torch.no_grad():  # a part of a larger support set may be copies of one row alone
        state = reasoner.architecture.prepare(torch.zeros(1, 5, 4), labels[:, :5], 2)
    assert state.held_out.isfinite().all()


@pytest.mark.parametrize("which", [0, 1])
def test__reasoner__copies__equivariant_in_examples_dimensions_and_classes(which: int) -> None:
    reasoner = reasoners()[which].double()
    views, labels, _, queries, _ = given_task(1, False)
    counts = torch.tensor([[2, 1, 1, 3, 1, 1, 1, 1, 1, 2, 1, 1]])
    support, labels = repeat(views[0], counts), repeat(labels, counts)
    expected = logits(reasoner, [support], labels, None, queries, None)
    order, rotation = torch.randperm(support.shape[1]), torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    classes = torch.tensor([2, 0, 1])
    found = logits(
        reasoner, [support[:, order] @ rotation], classes[labels[:, order]], None, [queries[0] @ rotation], None
    )
    torch.testing.assert_close(found[..., classes], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(torch.ones(1, 3), "weights are"), (torch.zeros(1, 12), "positive"), (torch.full((1, 12), torch.nan), "finite")],
)
def test__reasoner__invalid_weights__an_error(weights: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        logits(reasoners()[0], *given_task(1, False), weights)


def test__reasoner__weights_for_an_architecture_without_them__an_error() -> None:
    reasoner = build_reasoner("gpt2")
    support, labels, _, _ = draw_task(6)
    with pytest.raises(ValueError, match="reads no weights of examples"):
        reasoner.prepare(support, labels, support_weights=torch.ones_like(labels).float())
