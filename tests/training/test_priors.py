"""Synthetic tasks and the parts they are made of."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from transformers_tart.inputs.balance import classes_in_turn
from transformers_tart.training.priors.inputs import INPUTS, Inputs
from transformers_tart.training.priors.labels import SCORES, label_weights
from transformers_tart.training.priors.views import PRESENTATIONS
from transformers_tart.training.sources import draw_batch, draw_task


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), size=st.integers(8, 60))
def test__task__any_seed__finite_with_labels_in_range(seed: int, classes: int, size: int) -> None:
    embeddings, labels = draw_task(size, classes, Generator().manual_seed(seed))
    assert embeddings.shape[0] == labels.shape[0] == size
    assert torch.isfinite(embeddings).all()
    assert labels.dtype == torch.int64
    assert labels.min() >= 0
    assert labels.max() < classes


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("scores", list(SCORES))
def test__scores__any_inputs__mostly_differ_between_rows(inputs: Callable, scores: Callable) -> None:
    generator, varied = Generator().manual_seed(0), 0
    for _ in range(10):
        latent, cluster = inputs(50, 16, generator)
        found = scores(Inputs(latent, torch.ones(16), torch.ones(16), cluster), 3, generator)
        assert found.shape == (50, 3)
        assert torch.isfinite(found).all()
        varied += int((found.std(0) > 0).all())
    assert varied > 5  # rows that happen to be of one cluster have one score


@pytest.mark.parametrize("inputs", list(INPUTS))
@pytest.mark.parametrize("labeling", list(label_weights(2)))
def test__labels__any_inputs__several_classes(inputs: Callable, labeling: Callable) -> None:
    generator = Generator().manual_seed(0)
    latent, cluster = inputs(50, 16, generator)
    moved, labels = labeling(Inputs(latent, torch.ones(16), torch.ones(16), cluster), 3, generator)
    assert moved.shape == (50, 16)
    assert len(labels.unique()) > 1


@pytest.mark.parametrize("presentation", list(PRESENTATIONS))
def test__presentation__random_rows__one_finite_row_each(presentation: Callable) -> None:
    seen = presentation(torch.randn(30, 12, generator=Generator().manual_seed(0)), Generator().manual_seed(1))
    assert seen.shape[0] == 30
    assert torch.isfinite(seen).all()


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test__classes_in_turn__every_beginning__as_balanced_as_can_be(labels: list[int]) -> None:
    drawn = torch.tensor(labels)
    order = classes_in_turn(drawn)
    assert sorted(order.tolist()) == list(range(len(labels)))
    totals = torch.bincount(drawn)
    for size in range(1, len(labels) + 1):
        counts = torch.bincount(drawn[order[:size]], minlength=len(totals))
        unfinished = counts[counts < totals]
        assert unfinished.numel() == 0 or counts.max() - unfinished.min() <= 1


def test__batch__support__often_but_not_always_balanced() -> None:
    balanced = 0
    for seed in range(40):
        labels = draw_batch(1, 20, 4, 2, Generator().manual_seed(seed)).labels[0, :20]
        balanced += int(labels.sum() == 10)
    assert 12 < balanced < 38
