"""The linear algebra of the kernel architecture, against its definitions."""

import pytest
import torch
from helpers.builders import draw_task
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from transformers_tart.reasoners.architectures.smoothers import (
    Geometry,
    Kernel,
    Smoothers,
    half_squared_distances,
    hold_out,
    ridge_inverse,
    smooth,
)


SHARPNESS = [0.0, 0.5, 3.0]
STRENGTHS = [0.05, 1.0]


def fit(support: Tensor) -> tuple[Geometry, Tensor, Smoothers]:
    geometry = Geometry.of(support)
    distances = half_squared_distances(geometry.support, geometry.support)
    return geometry, distances, Smoothers.fit(geometry, distances, SHARPNESS, STRENGTHS)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test__geometry__any_scale__centered_with_mean_squared_norm_one(scale: float) -> None:
    support = draw_task(20)[0] * scale + 3 * scale
    geometry = Geometry.of(support)
    torch.testing.assert_close(geometry.support.mean(1), torch.zeros(1, support.shape[2]), atol=1e-5, rtol=0)
    assert geometry.support.square().sum(-1).mean().item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(geometry.locate(support), geometry.support, atol=1e-5, rtol=1e-5)


def test__geometry__query_of_other_width__said() -> None:
    with pytest.raises(ValueError, match="The queries have 3 dimensions, the support set has 5"):
        Geometry.of(torch.randn(1, 4, 5)).locate(torch.randn(1, 2, 3))


def test__distances__random_rows__half_the_squared_distance() -> None:
    a, b = torch.randn(2, 5, 7), torch.randn(2, 6, 7)
    torch.testing.assert_close(half_squared_distances(a, b), torch.cdist(a, b).square() / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test__kernel__of_the_support__its_gram_matrix(sharpness: float) -> None:
    support, _, query, _ = draw_task(12, 5)
    geometry, distances, _ = fit(support)
    kernel, gram = Kernel.fit(sharpness, geometry, distances)
    torch.testing.assert_close(kernel(geometry.support, geometry, distances), gram, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gram.mean(1), torch.zeros(1, 12), atol=1e-5, rtol=0)
    assert gram.diagonal(dim1=1, dim2=2).mean().item() == pytest.approx(1.0, abs=1e-4)
    located = geometry.locate(query)
    together = kernel(located, geometry, half_squared_distances(located, geometry.support))
    alone = kernel(located[:, 1:2], geometry, half_squared_distances(located[:, 1:2], geometry.support))
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-5, rtol=1e-4)


def test__kernel__sharpness_towards_zero__inner_product() -> None:
    geometry, distances, _ = fit(draw_task(10)[0])
    limit, gram = (Kernel.fit(sharpness, geometry, distances.double())[1].double() for sharpness in (0.0, 1e-5))
    torch.testing.assert_close(gram, limit, atol=1e-3, rtol=1e-3)


@given(seed=st.integers(0, 1000), strength=st.floats(0.02, 3.0))
def test__hold_out__any_task__equals_refitting_without_each_example(seed: int, strength: float) -> None:
    size = 10
    support = Geometry.of(draw_task(size, seed=seed)[0]).support.double()
    values = torch.randn(1, size, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gram = support @ support.transpose(1, 2)
    inverse = ridge_inverse(gram, strength)
    product = (inverse @ values.flatten(2)).view_as(values)
    found = values - product / inverse.diagonal(dim1=1, dim2=2)[:, :, None, None]
    torch.testing.assert_close(
        hold_out(product.float(), values.float(), inverse.float()), found.float(), atol=1e-3, rtol=1e-3
    )
    alpha = strength * size**0.5
    for i in range(size):
        rest = [j for j in range(size) if j != i]
        kept = gram[0][rest][:, rest] + alpha * torch.eye(size - 1, dtype=torch.float64)
        expected = gram[0, i, rest] @ torch.linalg.solve(kept, values[0, rest].flatten(1))
        torch.testing.assert_close(found[0, i].flatten(), expected)


def test__smoothers__queries__kernel_ridge_regression_of_each_kernel_and_strength() -> None:
    support, labels, query, _ = draw_task(14, 6)
    geometry, distances, smoothers = fit(support)
    targets = labels.float()[:, :, None, None].expand(-1, -1, len(smoothers.inverses), 1)
    located = geometry.locate(query)
    to_support = half_squared_distances(located, geometry.support)
    found = smooth(
        [kernel(located, geometry, to_support) for kernel in smoothers.kernels], smoothers.solve(targets)[0]
    )
    index = 0
    for sharpness in SHARPNESS:
        kernel, gram = Kernel.fit(sharpness, geometry, distances)
        for strength in STRENGTHS:
            weights = torch.linalg.solve(gram[0] + strength * 14**0.5 * torch.eye(14), labels[0].float())
            expected = kernel(located, geometry, to_support)[0] @ weights
            torch.testing.assert_close(found[0, :, index, 0], expected, atol=1e-4, rtol=1e-3)
            index += 1
    assert index == found.shape[2]


def test__smoothers__own_label__never_seen_by_the_example_itself() -> None:
    support, labels, _, _ = draw_task(12)
    smoothers = fit(support)[2]
    targets = labels.float()[:, :, None, None].expand(-1, -1, len(smoothers.inverses), 1)
    changed = targets.clone()
    changed[0, 3] = 1 - changed[0, 3]
    before, after = smoothers.solve(targets)[1], smoothers.solve(changed)[1]
    torch.testing.assert_close(before[0, 3], after[0, 3], atol=1e-4, rtol=1e-4)
    assert (before[0, 4] - after[0, 4]).abs().max() > 1e-3


EQUAL_ROWS = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(0)).expand(1, 7, 384)


def test__geometry__equal_rows__vary_by_rounding_alone_which_is_not_blown_up() -> None:
    assert Geometry.of(EQUAL_ROWS).support.abs().max() < 1e-4


@pytest.mark.parametrize("support", [torch.ones(1, 1, 3), EQUAL_ROWS, torch.randn(1, 2, 4).repeat(1, 4, 1)])
def test__smoothers__few_or_equal_examples__finite(support: Tensor) -> None:
    _, _, smoothers = fit(support)
    assert all(torch.isfinite(inverse).all() for inverse in smoothers.inverses)
