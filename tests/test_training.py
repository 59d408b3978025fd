"""Synthetic tasks and the trainer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.training import tasks
from transformers_tart.training.trainer import ReasonerTrainingArguments, draw_training_batch, train_reasoner


TINY = TartReasonerConfig(hidden_size=8, num_hidden_layers=1, head_dim=4, num_softmax_heads=1, ridge_alphas=[1.0])
SHORT = ReasonerTrainingArguments(max_steps=4, examples_per_step=200, max_support=20, save_steps=2, warmup_steps=1)
LONGER = replace(SHORT, max_steps=7, save_steps=3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), size=st.integers(8, 60))
def test__task__any_seed__finite_with_labels_in_range(seed: int, classes: int, size: int) -> None:
    embeddings, labels = tasks.draw_task(size, classes, Generator().manual_seed(seed))
    assert embeddings.shape[0] == labels.shape[0] == size
    assert torch.isfinite(embeddings).all()
    assert labels.dtype == torch.int64
    assert labels.min() >= 0
    assert labels.max() < classes


@pytest.mark.parametrize("inputs", list(tasks.INPUTS))
@pytest.mark.parametrize("labelling", list(tasks.LABELS))
def test__labels__any_inputs__can_be_drawn(inputs: object, labelling: object) -> None:
    generator = Generator().manual_seed(0)
    latent, cluster = inputs(50, 16, generator)
    drawn = tasks.Inputs(latent, torch.ones(16), torch.ones(16), cluster)
    moved, labels = labelling(drawn, 3, generator)
    assert moved.shape == (50, 16)
    assert len(labels.unique()) > 1


@pytest.mark.parametrize("view", list(tasks.VIEWS))
def test__view__random_rows__one_finite_row_each(view: object) -> None:
    seen = view(torch.randn(30, 12, generator=Generator().manual_seed(0)), Generator().manual_seed(1))
    assert seen.shape[0] == 30
    assert torch.isfinite(seen).all()


def test__batch__same_seed__same_bytes() -> None:
    first, second = (draw_training_batch(SHORT, Generator().manual_seed(5))[0] for _ in range(2))
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(first.labels, second.labels)


def test__batch__global_generator__left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw_training_batch(SHORT, Generator().manual_seed(5))
    assert torch.equal(before, torch.get_rng_state())


def test__batch__support__always_two_classes() -> None:
    for seed in range(20):
        batch, support = draw_training_batch(SHORT, Generator().manual_seed(seed))
        labels = batch.labels[:, :support]
        assert (labels != labels[:, :1]).any(dim=1).all()


def test__trainer__short_run__saves_what_it_returns(tmp_path: Path) -> None:
    reasoner = train_reasoner(TINY, tmp_path, SHORT)
    loaded = TartReasoner.from_pretrained(tmp_path)
    for name, tensor in reasoner.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    record = json.loads((tmp_path / "training.json").read_text())
    assert [entry["step"] for entry in record["history"]] == [2, 4]
    assert record["arguments"]["seed"] == SHORT.seed


def test__trainer__same_seed__same_weights(tmp_path: Path) -> None:
    first, second = (train_reasoner(TINY, tmp_path / name, SHORT).state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test__trainer__interrupted_and_resumed__same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole = train_reasoner(TINY, tmp_path / "whole", LONGER)
    parts, rounds = None, 0
    while rounds == 0 or json.loads((tmp_path / "parts" / "training.json").read_text())["history"][-1]["step"] < 7:
        parts = train_reasoner(TINY, tmp_path / "parts", LONGER, resume=True, max_minutes=0)
        rounds += 1
    assert rounds == 7  # a step each time
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in parts.state_dict().items())
    histories = [json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("whole", "parts")]
    assert histories[0][-1] == histories[1][-1]
    assert [path.name for path in (tmp_path / "parts").glob("*checkpoint*")] == ["checkpoint-7"]


def test__trainer__finished_run_resumed__left_as_it_is(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT)
    saved = (tmp_path / "model.safetensors").read_bytes()
    train_reasoner(TINY, tmp_path, SHORT, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


def test__trainer__resumed_with_other_arguments__refused(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT)
    with pytest.raises(ValueError, match=r"a run with other \['max_steps', 'seed'\]"):
        train_reasoner(TINY, tmp_path, replace(SHORT, seed=1, max_steps=9), resume=True)


def test__trainer__not_resumed__checkpoint_replaced(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, replace(SHORT, max_steps=9))
    train_reasoner(TINY, tmp_path, SHORT)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-4"]


def test__trainer__easy_tasks__loss_falls(tmp_path: Path) -> None:
    args = ReasonerTrainingArguments(
        max_steps=60, examples_per_step=600, max_support=40, max_classes=2, save_steps=30, warmup_steps=5
    )
    train_reasoner(TINY, tmp_path, args)
    history = json.loads((tmp_path / "training.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"] < 1.2


def test__trainer__loss_not_finite__said_and_saved_weights_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_reasoner(TINY, tmp_path, SHORT)
    saved = (tmp_path / "model.safetensors").read_bytes()
    args = ReasonerTrainingArguments(max_steps=4, examples_per_step=200, max_support=20, learning_rate=float("inf"))
    with pytest.raises((FloatingPointError, ValueError)):
        train_reasoner(TINY, tmp_path, args)
    assert (tmp_path / "model.safetensors").read_bytes() == saved
