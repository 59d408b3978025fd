"""The kernel architecture: what it must not depend on, and that its fast path equals the naive one."""

import copy

import pytest
import torch
from helpers.builders import build_reasoner, draw_task, shared_reasoner
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.reasoners.architectures.kernel import FIRST_PRIOR
from transformers_tart.reasoners.architectures.smoothers import Geometry, Smoothers, half_squared_distances, smooth
from transformers_tart.reasoners.architectures.stacking import StackPrior, fit_stack


REASONERS = ["random", "shipped"]
CLASSES = st.integers(2, 5)
SEEDS = st.integers(0, 1000)
TOLERANCE = {"atol": 2e-4, "rtol": 2e-4}


def get_reasoner(name: str) -> TartReasoner:
    return shared_reasoner() if name == "shipped" else build_reasoner()


def reason(reasoner: TartReasoner, support: Tensor, labels: Tensor, query: Tensor, **kwargs: int) -> Tensor:
    with torch.no_grad():
        return reasoner(support, labels, query, **kwargs).logits


def draw_rotation(dim: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)))[0]


@pytest.mark.parametrize("name", REASONERS)
def test__kernel__queries__get_different_answers(name: str) -> None:
    """Without this the invariances below could hold for a reasoner that ignores its input."""
    support, labels, query, _ = draw_task(24, 12, classes=3)
    probabilities = reason(get_reasoner(name), support, labels, query).softmax(-1)
    assert probabilities.std(1).min() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
@given(seed=SEEDS, classes=CLASSES)
def test__kernel__support_permuted__same_answer(name: str, seed: int, classes: int) -> None:
    support, labels, query, _ = draw_task(20, 6, classes=classes, seed=seed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    expected = reason(get_reasoner(name), support, labels, query)
    found = reason(get_reasoner(name), support[:, order], labels[:, order], query)
    torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
@given(seed=SEEDS, dim=st.integers(1, 30))
def test__kernel__dimensions_permuted__same_answer(name: str, seed: int, dim: int) -> None:
    support, labels, query, _ = draw_task(20, 6, dim=dim, seed=seed)
    order = torch.randperm(dim, generator=torch.Generator().manual_seed(seed))
    expected = reason(get_reasoner(name), support, labels, query)
    torch.testing.assert_close(
        reason(get_reasoner(name), support[..., order], labels, query[..., order]), expected, **TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
@given(seed=SEEDS, classes=CLASSES)
def test__kernel__labels_permuted__answer_permuted(name: str, seed: int, classes: int) -> None:
    support, labels, query, _ = draw_task(20, 6, classes=classes, seed=seed)
    renamed = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    expected = reason(get_reasoner(name), support, labels, query)
    found = reason(get_reasoner(name), support, renamed[labels], query)
    torch.testing.assert_close(found[..., renamed], expected, **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
@given(seed=SEEDS, dim=st.integers(2, 30))
def test__kernel__rotation__same_answer(name: str, seed: int, dim: int) -> None:
    support, labels, query, _ = draw_task(20, 6, dim=dim, seed=seed)
    rotation = draw_rotation(dim, seed)
    expected = reason(get_reasoner(name), support, labels, query)
    found = reason(get_reasoner(name), support @ rotation, labels, query @ rotation)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", REASONERS)
@pytest.mark.parametrize(("scale", "shift"), [(1e-30, 0.0), (1e30, 0.0), (1e-3, 0.5), (100.0, 5.0)])
def test__kernel__scale_and_shift__same_answer(name: str, scale: float, shift: float) -> None:
    support, labels, query, _ = draw_task()
    shift = shift * scale
    expected = reason(get_reasoner(name), support, labels, query)
    found = reason(get_reasoner(name), support * scale + shift, labels, query * scale + shift)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", REASONERS)
@given(seed=SEEDS, blocks=st.integers(1, 9))
def test__kernel__queries_in_blocks__same_answer(name: str, seed: int, blocks: int) -> None:
    reasoner = get_reasoner(name)
    support, labels, query, _ = draw_task(seed=seed, classes=3)
    with torch.no_grad():
        state = reasoner.prepare(support, labels)
        parts = [reasoner.query(state, block) for block in query.tensor_split(blocks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), reason(reasoner, support, labels, query), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", REASONERS)
def test__kernel__batch_of_tasks__each_as_if_alone(name: str) -> None:
    tasks = [draw_task(classes=3, seed=seed) for seed in range(4)]
    support, labels, query, _ = (torch.cat(tensors) for tensors in zip(*tasks, strict=True))
    together = reason(get_reasoner(name), support, labels, query)
    for i, (one_support, one_labels, one_query, _) in enumerate(tasks):
        alone = reason(get_reasoner(name), one_support, one_labels, one_query)
        torch.testing.assert_close(together[i], alone[0], **TOLERANCE)


@pytest.mark.parametrize("dim", [1, 7, 300])
@pytest.mark.parametrize("classes", [2, 11])
def test__kernel__any_width_and_class_count__one_reasoner_for_all(dim: int, classes: int) -> None:
    support, labels, query, _ = draw_task(33, 5, dim=dim, classes=classes)
    assert reason(build_reasoner(), support, labels, query).shape == (1, 5, classes)


def test__kernel__orthogonal_noise_dimensions_of_zero__change_nothing() -> None:
    support, labels, query, _ = draw_task()
    wide_support, wide_query = (torch.nn.functional.pad(x, (3, 8)) for x in (support, query))
    expected = reason(shared_reasoner(), support, labels, query)
    torch.testing.assert_close(reason(shared_reasoner(), wide_support, labels, wide_query), expected, **TOLERANCE)


def test__kernel__class_without_examples__never_the_answer() -> None:
    support, labels, query, _ = draw_task(30, 8, classes=2)
    probabilities = reason(shared_reasoner(), support, labels, query, num_labels=3).softmax(-1)
    assert probabilities.shape == (1, 8, 3)
    assert (probabilities.argmax(-1) != 2).all()
    assert probabilities[..., 2].mean() < 0.1


def test__kernel__subset_of_one_example__finite() -> None:
    support, labels, query, _ = draw_task(3)
    state = build_reasoner(max_support=2).prepare(support, labels)
    assert [part.state.geometry.support.shape[1] for part in state.views[0].parts] == [2, 1]
    assert torch.isfinite(build_reasoner(max_support=2).query(state, query)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e7, 1e25, 1e38])
def test__kernel__query_absurdly_far_out__finite(scale: float, dtype: torch.dtype) -> None:
    support, labels, query, _ = draw_task(12, 4)
    reasoner = copy.deepcopy(shared_reasoner()).to(dtype)
    assert torch.isfinite(reason(reasoner, support, labels, query.sign() * scale)).all()


def test__kernel__before_training__its_smoothers_stacked() -> None:
    support, labels, query, _ = draw_task(30, 8, classes=2)
    config = TartReasonerConfig()
    architecture = TartReasoner(config).eval().architecture
    members = torch.nn.functional.one_hot(labels, 2).float()
    share = members.mean(1)
    targets = (members - share[:, None]) / (2 * share.prod(-1).sqrt())
    geometry = Geometry.of(support)
    apart = half_squared_distances(geometry.support, geometry.support)
    apart.diagonal(dim1=1, dim2=2).zero_()
    smoothers = Smoothers.fit(geometry, apart, config.kernel_sharpness, config.ridge_strengths)
    solved, held_out = smoothers.solve(targets[:, :, None].expand(-1, -1, config.num_smoothers, -1))
    log_share = (share + 0.5 / 30).log()
    even = torch.full((1, config.num_smoothers), 1 / config.num_smoothers)
    prior = StackPrior(even, *torch.tensor(FIRST_PRIOR).view(4, 1, 1))
    weights, offset = fit_stack(held_out, members, log_share, prior)
    located = geometry.locate(query)
    distances = half_squared_distances(located, geometry.support)
    grams = [kernel(located, geometry, distances) for kernel in smoothers.kernels]
    expected = torch.einsum("bnac,ba->bnc", smooth(grams, solved), weights) + (offset + log_share)[:, None]
    with torch.no_grad():
        found = architecture.query(architecture.prepare(support, labels, 2), query)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test__kernel__many_classes__predictions_of_the_size_of_two() -> None:
    """What is stacked has to reach confident answers with any number of classes."""
    sizes = []
    for classes in (2, 20):
        support, labels, _, _ = draw_task(200, 8, dim=40, classes=classes)
        state = build_reasoner().architecture.prepare(support, labels, classes)
        located = state.geometry.support
        gram = state.kernels[0](located, state.geometry, half_squared_distances(located, located))
        sizes.append((gram @ state.solved_labels[:, :, 0]).std().item())
    assert 0.5 < sizes[0] / sizes[1] < 2


def test__kernel__part_of_one_class__finite() -> None:
    support, _, query, _ = draw_task(4, 3)
    state = build_reasoner().architecture.prepare(support, torch.zeros(1, 4, dtype=torch.int64), 2)
    assert torch.isfinite(build_reasoner().architecture.query(state, query)).all()
