"""The shift from synthetic tasks: distances behave as distances, and new training tasks are near."""

from types import SimpleNamespace

import pytest
import torch
from helpers.builders import build_reasoner, shared_reasoner
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from transformers_tart.evaluation.diagnosis.features import MOVES, Episode, Shape, choose_features, draw_episodes
from transformers_tart.evaluation.diagnosis.shift import (
    Reference,
    SyntheticTasks,
    measure_synthetic,
    squared_wasserstein,
)


SHAPE = Shape(k=16, queries=12, classes=2)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normals(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticTasks:
    return measure_synthetic(shared_reasoner(), SHAPE, 30, seed=0)


def measure(x: Tensor, y: Tensor, num_directions: int) -> tuple[float, float]:
    """Return the sliced distance of y from x and the largest along a direction."""
    sliced, largest = Reference.fit(x, seeded(), num_directions).measure(y)[0][:2].tolist()
    return sliced, largest


def test__reference__equal_sets__zero() -> None:
    x = normals(40, 5, seed=0)
    for same in (x[torch.randperm(40, generator=seeded())], x.repeat_interleave(3, dim=0)):
        assert measure(x, same, 64) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("dim", [1, 4, 32])
def test__reference__translated_normals__length_of_translation(dim: int) -> None:
    moved = normals(1000, dim, seed=1)
    moved[:, 0] += 3.0
    assert measure(normals(1000, dim, seed=0), moved, 500) == pytest.approx((3.0, 3.0), rel=0.1)


def test__reference__any_sets__at_most_the_transport_distance() -> None:
    for seed in range(5):
        x, y = normals(25, 3, seed), 1.5 * normals(25, 3, seed + 100) + 0.5
        cost = torch.cdist(x / x.std(0, correction=0), y / x.std(0, correction=0)).square()
        transport = cost[linear_sum_assignment(cost.numpy())].mean().sqrt().item()
        assert max(measure(x, y, 4000)) <= transport * 1.01


def test__squared_wasserstein__unequal_sizes__as_with_every_point_repeated() -> None:
    x, y = normals(6, 3, seed=0).sort(dim=0).values, normals(10, 3, seed=1).sort(dim=0).values
    repeated = (x.repeat_interleave(5, dim=0) - y.repeat_interleave(3, dim=0)).square().mean(0)
    torch.testing.assert_close(squared_wasserstein(x, y), repeated)


def test__kernel_features__rotated_moved_and_scaled_embeddings__same_points() -> None:
    (episode,) = draw_episodes(shared_reasoner(), SHAPE, 1, seeded(3))
    features, dim = choose_features(shared_reasoner().config), episode.support.shape[1]
    rotation = 4 * torch.linalg.qr(torch.randn(dim + 5, dim + 5, generator=seeded())).Q[:dim]
    other = Episode(episode.support @ rotation + 2, 1 - episode.labels, episode.query @ rotation + 2, 2)
    torch.testing.assert_close(features.points(other), features.points(episode), atol=2e-3, rtol=2e-3)
    assert features.points(episode).shape == (SHAPE.k + SHAPE.queries, len(features.names))
    for few in (episode.support[:2], episode.support[:1].repeat(3, 1)):
        assert torch.isfinite(features.points(Episode(few, torch.arange(len(few)) % 2, episode.query, 2))).all()


@pytest.mark.parametrize("architecture", ["kernel", "gpt2"])
def test__draw_episodes__same_seed__same_tasks_of_both_classes(architecture: str) -> None:
    reasoner = shared_reasoner() if architecture == "kernel" else build_reasoner("gpt2")
    first, again = (draw_episodes(reasoner, SHAPE, 3, seeded(1)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.support, b.support)
        assert len(a.labels.unique()) == 2
        for move in MOVES:
            moved = move(a, seeded(2))
            assert torch.equal(moved.query, move(b, seeded(2)).query)
            assert torch.isfinite(moved.support).all()
            assert not torch.allclose(moved.query, a.query)


def test__synthetic_tasks__unknown_architecture_or_too_few__said() -> None:
    unknown = SimpleNamespace(config=SimpleNamespace(architecture="rnn"))
    with pytest.raises(ValueError, match='no synthetic tasks and features for the architecture "rnn"'):
        draw_episodes(unknown, SHAPE, 1, seeded())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number of synthetic tasks is 5"):
        measure_synthetic(shared_reasoner(), SHAPE, 5, seed=0)


@pytest.mark.slow
def test__shift__new_training_tasks__seldom_outside(synthetic: SyntheticTasks) -> None:
    episodes = draw_episodes(shared_reasoner(), SHAPE, 30, seeded(77))
    shifts = [synthetic.compare([synthetic.measure([episode])]) for episode in episodes]
    assert sum(shift.is_outside for shift in shifts) <= 6
    assert 20 < sorted(shift.percentile for shift in shifts)[15] < 80


def test__shift__queries_far_away__outside_and_said_in_what(synthetic: SyntheticTasks) -> None:
    (episode,) = draw_episodes(shared_reasoner(), SHAPE, 1, seeded(7))
    shift = synthetic.compare([synthetic.measure([Episode(episode.support, episode.labels, 20 * episode.query, 2)])])
    assert shift.is_outside
    assert "distance" in shift.features[0].name
    assert (shift.features[0].percentile, shift.features[0].is_higher) == (100, True)
