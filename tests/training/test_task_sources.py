"""Where the tasks of a step come from, and what they are trained for."""

from dataclasses import replace

import pytest
import torch
from helpers.training import PAPER, TASKS, TINY_GPT2
from sklearn.linear_model import LogisticRegression
from torch import Generator

from transformers_tart import TartReasoner
from transformers_tart.training.presets import PRESETS
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, TaskSource
from transformers_tart.training.trainer import Objective


@pytest.mark.parametrize("source", [TASKS, PAPER], ids=["rich", "paper"])
def test__batch__same_seed__same_bytes(source: TaskSource) -> None:
    first, second = (source.draw(3, Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("source", [TASKS, PAPER], ids=["rich", "paper"])
def test__batch__global_generator__left_alone(source: TaskSource) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    source.draw(0, Generator().manual_seed(5))
    assert torch.equal(before, torch.get_rng_state())


def test__batch__support__always_two_classes() -> None:
    for seed in range(20):
        batch = TASKS.draw(seed, Generator().manual_seed(seed))
        labels = batch.labels[:, : batch.support_size]
        assert (labels != labels[:, :1]).any(dim=1).all()


@pytest.mark.slow
def test__rich_tasks__curriculum__grows_in_examples_and_classes() -> None:
    source = RichTasks(Ramp(10, 200, 190, 5), Ramp(2, 30, 28, 5), effort=2000)
    early, late = ([source.draw(step, Generator().manual_seed(i)) for i in range(30)] for step in (0, 5))
    assert {batch.num_classes for batch in early} == {2}
    assert max(batch.support_size for batch in early) <= 10
    assert max(batch.num_classes for batch in late) > 10
    assert max(batch.support_size for batch in late) > 100


@pytest.mark.parametrize("source", [TASKS, PAPER], ids=["rich", "paper"])
def test__validation__any_source__support_sets_of_two_classes(source: TaskSource) -> None:
    batches = source.validation(Generator().manual_seed(0))
    assert batches
    for batch in batches:
        labels = batch.labels[:, : batch.support_size]
        assert 0 < batch.support_size < batch.labels.shape[1]
        assert (labels != labels[:, :1]).any(dim=1).all()


def test__objective__sequences__bits_of_each_label_given_those_before() -> None:
    torch.manual_seed(0)
    reasoner, batch = TartReasoner(TINY_GPT2).eval(), PAPER.draw(9, Generator().manual_seed(0))
    with torch.no_grad():
        losses, right = Objective(reasoner)(batch)
        for task in range(len(batch)):
            x, y = batch.embeddings[task : task + 1], batch.labels[task : task + 1]
            log_odds = reasoner.architecture.sequence_logits(x, y)[0]
            likelihood = torch.where(y[0] == 1, log_odds.sigmoid(), (-log_odds).sigmoid())
            assert losses[task].item() == pytest.approx(-likelihood.log2().mean().item(), abs=1e-5)
            assert right[task].item() == pytest.approx((likelihood > 0.5).float().mean().item())


@pytest.mark.parametrize("name", PRESETS)
def test__preset__batch_at_the_end__fits_its_reasoner(name: str) -> None:
    preset = PRESETS[name]
    config = preset.build_config()
    batch = preset.tasks.draw(preset.arguments.max_steps, Generator().manual_seed(0))
    assert preset.arguments.max_steps > 0
    if batch.support_size is None:
        assert config.architecture == "gpt2"
        assert batch.embeddings.shape[1:] == (config.n_positions, config.num_components)
    else:
        assert batch.support_size <= config.max_support


def test__ramp__steps__jumps_up_to_its_end() -> None:
    ramp = Ramp(start=18, end=66, increment=20, interval=1000)
    assert [ramp.at(step) for step in (0, 999, 1000, 2000, 3000, 90_000)] == [18, 18, 38, 58, 66, 66]


def test__paper_tasks__labels__follow_their_logistic_regression() -> None:
    tasks = PaperTasks(Ramp(3, 3, 1, 1), Ramp(4000, 4000, 1, 1), dim=8, alpha=2, batch_size=4)
    batch = tasks.draw(0, Generator().manual_seed(0))
    assert torch.equal(batch.embeddings[..., 3:], torch.zeros(4, 4000, 5))
    assert batch.embeddings[..., :3].std() == pytest.approx(1.0, abs=0.02)
    scales = []
    for x, y in zip(batch.embeddings, batch.labels, strict=True):
        scales.append(torch.from_numpy(LogisticRegression(C=1e6).fit(x[:, :3], y).coef_).square().mean())
    assert torch.stack(scales).mean().sqrt().item() == pytest.approx(2.0, rel=0.6)  # twelve draws of w ~ 2 N(0, 1)


def test__paper_tasks__variable_alpha__whole_scales() -> None:
    fixed = PaperTasks(Ramp(8, 8, 1, 1), Ramp(4, 4, 1, 1), dim=8, alpha=5, batch_size=500)
    variable = replace(fixed, variable_alpha=True)
    scales = variable._draw_weights(Generator().manual_seed(0)) / (fixed._draw_weights(Generator().manual_seed(0)) / 5)
    assert set(scales.round().flatten().tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    torch.testing.assert_close(scales, scales.round())
