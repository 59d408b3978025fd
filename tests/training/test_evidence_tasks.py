"""Tasks of several views and hints, and the weighing that is learned from them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.training.evidence_tasks import EvidenceTasks, Shape, draw_batch
from transformers_tart.training.presets import ReasonerTrainingArguments
from transformers_tart.training.priors.hints import draw_hints
from transformers_tart.training.priors.views import VIEWS, draw_views
from transformers_tart.training.trainer import train_reasoner
from transformers_tart.training.validation import Validation


TASKS = EvidenceTasks(
    max_support=24, max_classes=5, query_size=8, effort=400, validation_shapes=((0, 2, 1, 2), (8, 2, 2, 1))
)
TINY = TartReasonerConfig(weighing_size=4, holds_out_means=True)
SHORT = ReasonerTrainingArguments(max_steps=4, warmup_steps=1, save_steps=2, learning_rate=3e-3)


@given(
    support=st.sampled_from([0, 4, 12]),
    classes=st.integers(2, 4),
    views=st.integers(1, 3),
    hints=st.integers(0, 2),
    unlabeled=st.sampled_from([0, 5]),
    seed=st.integers(0, 50),
)
def test__batch__any_shape__finite_embeddings_and_hints_of_every_row(
    support: int, classes: int, views: int, hints: int, unlabeled: int, seed: int
) -> None:
    shape = Shape(support, 6, classes, views, hints, unlabeled)
    batch = draw_batch(2, shape, Generator().manual_seed(seed))
    assert len(batch.views) == views
    assert {view.shape[:2] for view in batch.views} == {(2, support + 6)}
    assert all(torch.isfinite(view).all() for view in batch.views)
    assert batch.labels.shape == (2, support + 6)
    if support:
        assert (batch.labels[:, :support] != batch.labels[:, :1]).any(dim=1).all()
    if hints:
        assert batch.hints.shape == (2, support + 6, hints, classes)
        assert batch.unlabeled_hints.shape == (2, unlabeled, hints, classes)
        assert not batch.hints.isinf().any()
    else:
        assert batch.hints is None


def test__batch__same_seed__same_bytes_and_global_generator_left_alone() -> None:
    before = torch.get_rng_state()
    first, second = (TASKS.draw(3, Generator().manual_seed(5)) for _ in range(2))
    for one, other in zip((*first.views, first.labels), (*second.views, second.labels), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test__draws__many_steps__from_no_examples_to_many_with_and_without_hints() -> None:
    batches = [TASKS.draw(0, Generator().manual_seed(seed)) for seed in range(60)]
    assert min(batch.support_size for batch in batches) == 0 < max(batch.support_size for batch in batches)
    assert {batch.hints is None for batch in batches} == {True, False}
    assert all(batch.hints is not None or len(batch.views) > 1 for batch in batches)
    assert all(batch.hints is not None for batch in batches if batch.support_size == 0)


def test__hints__many_tasks__right_more_often_than_by_chance_and_seldom_misleading() -> None:
    rates = []
    for seed in range(200):
        generator = Generator().manual_seed(seed)
        latent, labels = torch.randn(200, 8, generator=generator), torch.arange(200) % 4
        rows, _ = draw_hints(latent, labels, 4, 1, 0, generator)
        hint = rows[:, 0].nan_to_num(float("-inf"))
        hint = hint - torch.stack([hint[labels == c].mean(0) for c in range(4)]).mean(0).nan_to_num(0.0)
        rates.append((hint.argmax(-1) == labels).float().mean().item())
    rates = torch.tensor(rates)
    assert rates.median() > 0.4
    assert 0.01 < (rates < 0.2).float().mean() < 0.2
    assert (rates > 0.8).float().mean() > 0.05


@pytest.mark.parametrize("change", VIEWS)
def test__view__any_kind__one_finite_row_each(change: object) -> None:
    rows, labels = torch.randn(30, 12), torch.arange(30) % 3
    found = change(rows, labels, Generator().manual_seed(0))  # type: ignore[operator]
    assert len(found) == 30
    assert torch.isfinite(found).all()


def test__views__many__some_near_copies() -> None:
    rows, labels = torch.randn(40, 12), torch.arange(40) % 2
    views = draw_views(rows, labels, 30, Generator().manual_seed(0))
    close = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9
        for i, a in enumerate(views)
        for b in views[:i]
        if a.shape == b.shape
    ]
    assert any(close)


@pytest.mark.slow
def test__weighing__trained_on_a_base__base_kept_and_weighing_changed(tmp_path: Path) -> None:
    base = TartReasoner(TartReasonerConfig(holds_out_means=True))
    found = train_reasoner(TINY, tmp_path / "run", SHORT, TASKS, base=base)
    for name, tensor in base.architecture.state_dict().items():
        assert torch.equal(found.architecture.state_dict()[name], tensor)
    assert found.weighing.task_out.weight.abs().max() > 0
    loaded = TartReasoner.from_pretrained(tmp_path / "run")
    assert loaded.reads_hints


@pytest.mark.slow
def test__weighing__interrupted_and_resumed__same_weights_bit_for_bit(tmp_path: Path) -> None:
    base = TartReasoner(TartReasonerConfig(holds_out_means=True))
    whole = train_reasoner(TINY, tmp_path / "whole", SHORT, TASKS, base=base)
    train_reasoner(TINY, tmp_path / "parts", SHORT, TASKS, base=base, max_minutes=0)
    parts = train_reasoner(TINY, tmp_path / "parts", SHORT, TASKS, base=base, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor), name


@pytest.mark.slow
def test__validation__views_and_hints__named_and_measured() -> None:
    validation = Validation(replace(TASKS, validation_tasks=2).validation(Generator().manual_seed(0)))
    scores = validation.measure(TartReasoner(TINY))
    assert list(scores) == ["k=0, 2 classes, 1 views, 2 hints", "k=8, 2 classes, 2 views, 1 hints"]
    assert all(0 < score.loss < 5 for score in scores.values())
