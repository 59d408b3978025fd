"""Stacking: the optimum it claims, what the prior and the examples each have to say, and its gradients."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, one_hot

from transformers_tart.reasoners.architectures.stacking import StackPrior, blend, fit_stack


SEEDS = st.integers(0, 1000)


def build_prior(smoothers: int, level: float = 5.0, precision: float = 1.0, batch: int = 1) -> StackPrior:
    return StackPrior(
        shares=torch.full((batch, smoothers), 1 / smoothers),
        level=torch.full((batch, 1), level),
        level_precision=torch.full((batch, 1), precision),
        deviation_precision=torch.full((batch, 1), precision),
        offset_precision=torch.full((batch, 1), precision),
    )


def draw_problem(
    size: int, smoothers: int, classes: int, seed: int, signal: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions that tell of the labels as far as `signal` says, one-hot labels, and their log-shares."""
    generator = Generator().manual_seed(seed)
    members = one_hot(torch.arange(size) % classes, classes).float()[None]
    noise = torch.randn(1, size, smoothers, classes, generator=generator)
    predictions = signal * (members - 1 / classes)[:, :, None] + noise
    return predictions / 2, members, (members.mean(1) + 0.5 / size).log()


@given(seed=SEEDS, classes=st.integers(2, 5))
def test__fit_stack__any_problem__least_objective(seed: int, classes: int) -> None:
    predictions, members, log_share = draw_problem(30, 3, classes, seed)
    prior = build_prior(3)
    weights, offset = fit_stack(predictions, members, log_share, prior)

    level = torch.tensor(5.0, requires_grad=True)
    deviations, offsets = torch.zeros(3, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([level, deviations, offsets], max_iter=500, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        logits = torch.einsum("kac,a->kc", predictions[0], level / 3 + deviations) + offsets + log_share
        misfit = cross_entropy(logits, members[0].argmax(-1), reduction="sum")
        cost = misfit + ((level - 5).square() + deviations.square().sum() + offsets.square().sum()) / 2
        cost.backward()
        return cost

    optimizer.step(objective)
    torch.testing.assert_close(weights[0], (level / 3 + deviations).detach(), atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(offset[0], offsets.detach(), atol=2e-3, rtol=1e-2)


def test__fit_stack__certain_prior__the_prior() -> None:
    weights, offset = fit_stack(*draw_problem(40, 4, 3, seed=0), build_prior(4, level=6.0, precision=1e6))
    torch.testing.assert_close(weights, torch.full((1, 4), 1.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(offset, torch.zeros(1, 3), atol=1e-3, rtol=0)


def test__fit_stack__noise_or_signal__smoothers_trusted_as_they_deserve() -> None:
    prior = build_prior(2, precision=0.01)
    blind, sighted = (
        fit_stack(*draw_problem(400, 2, 2, seed=1, signal=signal), prior)[0].sum() for signal in (0.0, 3.0)
    )
    assert blind.abs() < 1
    assert sighted > 3


def test__fit_stack__one_smoother_better__counts_more() -> None:
    predictions, members, log_share = draw_problem(200, 2, 2, seed=2)
    better = predictions.clone()
    better[:, :, 1] = predictions[:, :, 1] + members - 0.5
    weights, _ = fit_stack(better, members, log_share, build_prior(2, precision=0.1))
    assert weights[0, 1] > 2 * weights[0, 0]


@pytest.mark.slow
@given(seed=SEEDS, classes=st.integers(2, 6))
def test__fit_stack__examples_and_classes_permuted__weights_same_and_offsets_permuted(seed: int, classes: int) -> None:
    predictions, members, log_share = draw_problem(25, 3, classes, seed)
    generator = Generator().manual_seed(seed)
    rows, names = torch.randperm(25, generator=generator), torch.randperm(classes, generator=generator)
    weights, offset = fit_stack(predictions, members, log_share, build_prior(3))
    found, found_offset = fit_stack(
        predictions[:, rows][..., names], members[:, rows][..., names], log_share[:, names], build_prior(3)
    )
    torch.testing.assert_close(found, weights, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found_offset, offset[:, names], atol=1e-4, rtol=1e-4)


def test__fit_stack__batch__each_as_if_alone() -> None:
    tasks = [draw_problem(20, 3, 4, seed=seed, signal=seed) for seed in range(3)]
    together = fit_stack(*(torch.cat(parts) for parts in zip(*tasks, strict=True)), build_prior(3, batch=3))
    for i, task in enumerate(tasks):
        for whole, alone in zip(together, fit_stack(*task, build_prior(3)), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [field.name for field in fields(StackPrior)])
def test__fit_stack__gradient_of_the_prior__as_by_finite_differences(name: str) -> None:
    problem, prior = draw_problem(30, 3, 3, seed=3), build_prior(3)
    values = {field.name: getattr(prior, field.name) for field in fields(StackPrior)}

    def total(value: Tensor) -> Tensor:
        weights, offset = fit_stack(*problem, StackPrior(**(values | {name: value})))
        return (weights * torch.arange(1.0, 4.0)).sum() + offset[0, 0]

    value = values[name].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(value), value)
    step = torch.zeros_like(value)
    step[0, 0] = 0.02
    with torch.no_grad():
        expected = (total(value + step) - total(value - step)) / 0.04
    assert gradient[0, 0].item() == pytest.approx(expected.item(), rel=0.02, abs=2e-3)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1e3])
def test__fit_stack__predictions_of_any_size__finite(size: float) -> None:
    predictions, members, log_share = draw_problem(12, 3, 3, seed=4)
    weights, offset = fit_stack(predictions * size, members, log_share, build_prior(3))
    assert torch.isfinite(weights).all()
    assert torch.isfinite(offset).all()


@given(seed=SEEDS, classes=st.integers(2, 5))
def test__blend__fitted_stack__log_probabilities_of_each_example(seed: int, classes: int) -> None:
    predictions, members, log_share = draw_problem(30, 3, classes, seed)
    weights, offset = fit_stack(predictions, members, log_share, build_prior(3))
    found = blend(predictions, weights, offset + log_share)
    logits = (predictions[0] * weights[0][:, None]).sum(1) + offset[0] + log_share[0]
    torch.testing.assert_close(found[0], logits.log_softmax(-1))
