"""The shift from synthetic tasks: distances behave as distances, and new tasks of the same kind are not far."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from helpers.builders import build_reasoner, shared_reasoner
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from transformers_tart.evaluation.diagnosis.episodes import MOVES, Episode, Shape, draw_episodes
from transformers_tart.evaluation.diagnosis.features import view_of
from transformers_tart.evaluation.diagnosis.synthetic import SyntheticTasks, measure_synthetic
from transformers_tart.evaluation.diagnosis.wasserstein import max_sliced_wasserstein as max_sliced
from transformers_tart.evaluation.diagnosis.wasserstein import sliced_wasserstein, squared_wasserstein


SHAPE = Shape(k=16, queries=12, classes=2)
Distance = Callable[..., float]
both_distances = pytest.mark.parametrize("distance", [sliced_wasserstein, max_sliced])


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def normals(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def synthetic() -> SyntheticTasks:
    return measure_synthetic(shared_reasoner(), SHAPE, 30, seed=0)


@both_distances
def test__sliced_wasserstein__equal_sets__zero(distance: Distance) -> None:
    x = normals(40, 5, seed=0)
    assert distance(x, x[torch.randperm(40, generator=seeded())], seeded()) == pytest.approx(0.0, abs=1e-12)
    assert distance(x, x.repeat_interleave(3, dim=0), seeded()) == pytest.approx(0.0, abs=1e-12)


@both_distances
def test__sliced_wasserstein__swapped_sets__symmetric(distance: Distance) -> None:
    x, y = normals(30, 4, seed=0), 2 * normals(50, 4, seed=1) + 1
    assert distance(x, y, seeded()) == pytest.approx(distance(y, x, seeded()))


@both_distances
@pytest.mark.parametrize("dim", [1, 4, 32])
def test__sliced_wasserstein__translated_normals__length_of_translation(distance: Distance, dim: int) -> None:
    moved = normals(1000, dim, seed=1)
    moved[:, 0] += 3.0
    assert distance(normals(1000, dim, seed=0), moved, seeded(), 500) == pytest.approx(3.0, rel=0.1)


def test__sliced_wasserstein__rotated_sets__same_in_expectation() -> None:
    x, y = normals(60, 6, seed=0), normals(80, 6, seed=1) * torch.arange(1, 7)
    rotation = torch.linalg.qr(normals(6, 6, seed=2)).Q
    found = sliced_wasserstein(x, y, seeded(), 4000)
    assert sliced_wasserstein(x @ rotation, y @ rotation, seeded(), 4000) == pytest.approx(found, rel=0.03)


@both_distances
def test__sliced_wasserstein__any_sets__at_most_the_transport_distance(distance: Distance) -> None:
    for seed in range(5):
        x, y = normals(25, 3, seed), 1.5 * normals(25, 3, seed + 100) + 0.5
        cost = torch.cdist(x, y).square()
        transport = cost[linear_sum_assignment(cost.numpy())].mean().sqrt().item()
        assert distance(x, y, seeded(), 4000) <= transport * 1.01


def test__squared_wasserstein__unequal_sizes__as_with_every_point_repeated() -> None:
    x, y = normals(6, 3, seed=0).sort(dim=0).values, normals(10, 3, seed=1).sort(dim=0).values
    repeated = (x.repeat_interleave(5, dim=0) - y.repeat_interleave(3, dim=0)).square().mean(0)
    torch.testing.assert_close(squared_wasserstein(x, y), repeated)


@pytest.mark.parametrize("shape", [(5, 3), (0, 4), (5,)])
def test__sliced_wasserstein__sets_that_do_not_fit__said(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(n, d\) and \(m, d\)"):
        sliced_wasserstein(torch.zeros(5, 4), torch.zeros(shape), seeded())


def test__kernel_view__rotated_moved_and_scaled_embeddings__same_points() -> None:
    (episode,) = draw_episodes(shared_reasoner(), SHAPE, 1, seeded(3))
    view, dim = view_of(shared_reasoner().config), episode.support.shape[1]
    rotation = 4 * torch.linalg.qr(torch.randn(dim + 5, dim + 5, generator=seeded())).Q[:dim]
    other = Episode(episode.support @ rotation + 2, 1 - episode.labels, episode.query @ rotation + 2, 2)
    torch.testing.assert_close(view.points(other), view.points(episode), atol=2e-3, rtol=2e-3)
    assert view.points(episode).shape == (SHAPE.k + SHAPE.queries, len(view.features))
    for few in (episode.support[:2], episode.support[:1].repeat(3, 1)):
        assert torch.isfinite(view.points(Episode(few, torch.arange(len(few)) % 2, episode.query, 2))).all()


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
    with pytest.raises(ValueError, match='no synthetic tasks for the architecture "rnn"'):
        draw_episodes(unknown, SHAPE, 1, seeded())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='architecture "rnn" sees is not known'):
        view_of(unknown.config)
    with pytest.raises(ValueError, match="number of synthetic tasks is 5"):
        measure_synthetic(shared_reasoner(), SHAPE, 5, seed=0)


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
