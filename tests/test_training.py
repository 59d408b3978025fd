"""Synthetic tasks and the trainer."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Generator

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.training import tasks
from transformers_tart.training.arguments import ReasonerTrainingArguments
from transformers_tart.training.curriculum import Ramp
from transformers_tart.training.presets import PRESETS
from transformers_tart.training.sources import PaperTasks, RichTasks, TaskSource, TrainingBatch
from transformers_tart.training.trainer import Objective, train_reasoner


TINY = TartReasonerConfig(hidden_size=8, num_hidden_layers=1, head_dim=4, num_softmax_heads=1, ridge_alphas=[1.0])
TASKS = RichTasks(examples_per_step=200, max_support=20)
SHORT = ReasonerTrainingArguments(max_steps=4, save_steps=2, warmup_steps=1)
LONGER = replace(SHORT, max_steps=7, save_steps=3)
PAPER = PaperTasks(Ramp(2, 4, 1, 2), Ramp(6, 9, 1, 3), dim=4, batch_size=6)
TINY_GPT2 = TartReasonerConfig(
    architecture="gpt2", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, n_positions=10, num_components=4
)
TRAIN_TWICE = """
import sys
from pathlib import Path
from test_training import LONGER, PAPER, TASKS, TINY, TINY_GPT2
from transformers_tart.training.trainer import train_reasoner
for name, config, tasks in (("kernel", TINY, TASKS), ("gpt2", TINY_GPT2, PAPER)):
    train_reasoner(config, Path(sys.argv[1]) / name, LONGER, tasks)
"""


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


def test__trainer__short_run__saves_what_it_returns(tmp_path: Path) -> None:
    reasoner = train_reasoner(TINY, tmp_path, SHORT, TASKS)
    loaded = TartReasoner.from_pretrained(tmp_path)
    for name, tensor in reasoner.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    record = json.loads((tmp_path / "training.json").read_text())
    assert [entry["step"] for entry in record["history"]] == [2, 4]
    assert record["arguments"]["seed"] == SHORT.seed


def test__trainer__same_seed__same_weights(tmp_path: Path) -> None:
    first, second = (train_reasoner(TINY, tmp_path / name, SHORT, TASKS).state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test__trainer__interrupted_and_resumed__same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole = train_reasoner(TINY, tmp_path / "whole", LONGER, TASKS)
    parts, rounds = None, 0
    while rounds == 0 or json.loads((tmp_path / "parts" / "training.json").read_text())["history"][-1]["step"] < 7:
        parts = train_reasoner(TINY, tmp_path / "parts", LONGER, TASKS, resume=True, max_minutes=0)
        rounds += 1
    assert rounds == 7  # a step each time
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in parts.state_dict().items())
    histories = [json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("whole", "parts")]
    assert histories[0][-1] == histories[1][-1]
    assert [path.name for path in (tmp_path / "parts").glob("*checkpoint*")] == ["checkpoint-7"]


def test__trainer__finished_run_resumed__left_as_it_is(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    saved = (tmp_path / "model.safetensors").read_bytes()
    train_reasoner(TINY, tmp_path, SHORT, TASKS, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


def test__trainer__resumed_with_other_arguments__refused(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    with pytest.raises(ValueError, match=r"other \['tasks'\]"):
        train_reasoner(TINY, tmp_path, SHORT, RichTasks(), resume=True)
    with pytest.raises(ValueError, match=r"a run with other \['max_steps', 'seed'\]"):
        train_reasoner(TINY, tmp_path, replace(SHORT, seed=1, max_steps=9), TASKS, resume=True)


def test__trainer__not_resumed__checkpoint_replaced(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, replace(SHORT, max_steps=9), TASKS)
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-4"]


def test__trainer__easy_tasks__loss_falls(tmp_path: Path) -> None:
    args = ReasonerTrainingArguments(max_steps=60, save_steps=30, warmup_steps=5)
    train_reasoner(TINY, tmp_path, args, RichTasks(examples_per_step=600, max_support=40, max_classes=2))
    history = json.loads((tmp_path / "training.json").read_text())["history"]
    assert history[-1]["loss"] < history[0]["loss"] < 1.2


def test__trainer__loss_not_finite__said_and_saved_weights_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    saved = (tmp_path / "model.safetensors").read_bytes()
    args = ReasonerTrainingArguments(max_steps=4, learning_rate=float("inf"))
    with pytest.raises((FloatingPointError, ValueError)):
        train_reasoner(TINY, tmp_path, args, TASKS)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


@dataclass(frozen=True)
class SameTasks(TaskSource):
    """The paper's first batch, again and again."""

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        return PAPER.draw(0, Generator().manual_seed(0))


def test__trainer__sequences_that_repeat__learned_by_heart(tmp_path: Path) -> None:
    args = ReasonerTrainingArguments(max_steps=100, learning_rate=1e-2, save_steps=20, warmup_steps=5)
    train_reasoner(TINY_GPT2, tmp_path, args, SameTasks())
    history = json.loads((tmp_path / "training.json").read_text())["history"]
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert history[-1]["accuracy"] > history[0]["accuracy"]


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


def read_history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "training.json").read_text())["history"]


def assert_same_history(first: Path, second: Path) -> None:
    """Losses as rounded in the record; of weights, Adam magnifies what rounding does to gradients near zero."""
    for one, other in zip(read_history(first), read_history(second), strict=True):
        assert one == pytest.approx(other, abs=2e-4)


def test__trainer__tasks_read_in_parts__same_losses(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path / "once", LONGER, TASKS)
    train_reasoner(TINY, tmp_path / "parts", replace(LONGER, gradient_accumulation_steps=3), TASKS)
    assert_same_history(tmp_path / "once", tmp_path / "parts")


def test__trainer__two_processes__same_losses(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    (tmp_path / "train.py").write_text(TRAIN_TWICE)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, command in (("one", []), ("two", [*launch, *quiet])):
        arguments = [sys.executable, *command, str(tmp_path / "train.py"), str(tmp_path / name)]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("kernel", "gpt2"):
        assert_same_history(tmp_path / "one" / kind, tmp_path / "two" / kind)


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
        assert config.architecture == "kernel"


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
    scales = variable._weights(Generator().manual_seed(0)) / (fixed._weights(Generator().manual_seed(0)) / 5)
    assert set(scales.round().flatten().tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    torch.testing.assert_close(scales, scales.round())
