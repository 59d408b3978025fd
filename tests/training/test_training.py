"""The trainer: what a run leaves, and that nothing but its arguments matters."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.training import LONG, LONGER, OFTEN_SAVED, PAPER, SHORT, TASKS, TINY, TINY_GPT2, LossFile
from torch import Generator

from transformers_tart import TartReasoner, TartReasonerConfig
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.reasoners.architectures.smoothers import Geometry, half_squared_distances
from transformers_tart.training.presets import ReasonerTrainingArguments
from transformers_tart.training.sources import Ramp, RichTasks, TaskSource, TrainingBatch
from transformers_tart.training.trainer import Objective, train_reasoner
from transformers_tart.training.validation import Validation, overall


TRAIN_TWICE = """
import sys
from pathlib import Path
from torch import Generator
from helpers.training import LONG, PAPER, TASKS, TINY, TINY_GPT2, LossFile
from transformers_tart.training.trainer import train_reasoner
from transformers_tart.training.validation import Validation
for name, config, tasks in (("kernel", TINY, TASKS), ("gpt2", TINY_GPT2, PAPER)):
    folder = Path(sys.argv[1])
    tracker = LossFile(folder / f"{name}.jsonl")
    validation = Validation(tasks.validation(Generator().manual_seed(0)))
    train_reasoner(config, folder / name, LONG, tasks, log_with=tracker, validation=validation)
"""
TRAIN_UNTIL_KILLED = """
import sys
from helpers.training import OFTEN_SAVED, TASKS, TINY
from transformers_tart.training.trainer import train_reasoner
train_reasoner(TINY, sys.argv[1], OFTEN_SAVED, TASKS)
"""


@pytest.mark.slow
def test__trainer__short_run__saves_what_it_returns(tmp_path: Path) -> None:
    reasoner = train_reasoner(TINY, tmp_path, SHORT, TASKS)
    loaded = TartReasoner.from_pretrained(tmp_path)
    for name, tensor in reasoner.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    record = json.loads((tmp_path / "training.json").read_text())
    assert [entry["step"] for entry in record["history"]] == [2, 4]
    assert record["arguments"]["seed"] == SHORT.seed


@pytest.mark.slow
def test__trainer__same_seed__same_weights(tmp_path: Path) -> None:
    first, second = (train_reasoner(TINY, tmp_path / name, SHORT, TASKS).state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
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


@pytest.mark.slow
def test__trainer__finished_run_resumed__left_as_it_is(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    saved = (tmp_path / "model.safetensors").read_bytes()
    train_reasoner(TINY, tmp_path, SHORT, TASKS, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


@pytest.mark.slow
def test__trainer__resumed_with_other_arguments__refused(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    with pytest.raises(ValueError, match=r"other \['tasks'\]"):
        train_reasoner(TINY, tmp_path, SHORT, RichTasks(), resume=True)
    wider = TartReasonerConfig(**{**TINY.to_dict(), "ridge_strengths": [0.2]})
    with pytest.raises(ValueError, match=r"other \['reasoner'\]"):
        train_reasoner(wider, tmp_path, SHORT, TASKS, resume=True)
    with pytest.raises(ValueError, match=r"a run with other \['max_steps', 'seed'\]"):
        train_reasoner(TINY, tmp_path, replace(SHORT, seed=1, max_steps=9), TASKS, resume=True)


@pytest.mark.slow
def test__trainer__not_resumed__checkpoint_replaced(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, replace(SHORT, max_steps=9), TASKS)
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-4"]


@pytest.mark.slow
def test__trainer__tasks_of_one_kind__better_on_others_of_the_kind(tmp_path: Path) -> None:
    tasks = replace(TASKS, classes=Ramp(2, 2, 0, 1), effort=900)
    args = ReasonerTrainingArguments(max_steps=60, save_steps=60, warmup_steps=5, learning_rate=5e-3)
    validation = Validation(replace(tasks, validation_tasks=100).validation(Generator().manual_seed(1)))
    train_reasoner(TINY, tmp_path, args, tasks)
    untrained = overall(validation.measure(TartReasoner(TINY)))
    trained = overall(validation.measure(TartReasoner.from_pretrained(tmp_path)))
    assert trained.loss < untrained.loss - 0.01


@pytest.mark.slow
def test__trainer__weights_not_finite__said_and_saved_ones_kept(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path, SHORT, TASKS)
    saved = (tmp_path / "model.safetensors").read_bytes()
    args = replace(SHORT, save_steps=1, learning_rate=float("inf"))
    with pytest.raises(FloatingPointError, match="The weights are not finite after step 1"):
        train_reasoner(TINY, tmp_path, args, TASKS)
    assert (tmp_path / "model.safetensors").read_bytes() == saved
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-4"]


@pytest.mark.parametrize("name", ["max_steps", "save_steps", "gradient_accumulation_steps"])
def test__arguments__no_steps__said(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        ReasonerTrainingArguments(**{name: 0})


def test__trainer__tracker_not_installed__said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['comet_ml'\] are not installed"):
        train_reasoner(TINY, tmp_path, SHORT, TASKS, log_with="comet_ml")


@dataclass(frozen=True)
class SameTasks(TaskSource):
    """The paper's first batch, again and again."""

    def draw(self, step: int, generator: Generator) -> TrainingBatch:
        return PAPER.draw(0, Generator().manual_seed(0))

    def validation(self, generator: Generator) -> tuple[TrainingBatch, ...]:
        """None: what is learned by heart is not for other tasks."""
        return ()


@pytest.mark.slow
def test__trainer__sequences_that_repeat__learned_by_heart(tmp_path: Path) -> None:
    args = ReasonerTrainingArguments(max_steps=100, learning_rate=1e-2, save_steps=20, warmup_steps=5)
    train_reasoner(TINY_GPT2, tmp_path, args, SameTasks())
    history = json.loads((tmp_path / "training.json").read_text())["history"]
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert history[-1]["accuracy"] > history[0]["accuracy"]


def read_history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "training.json").read_text())["history"]


def assert_same_history(first: Path, second: Path) -> None:
    """Losses as rounded in the record; of weights, Adam magnifies what rounding does to gradients near zero."""
    for one, other in zip(read_history(first), read_history(second), strict=True):
        assert one == pytest.approx(other, abs=2e-4)


@pytest.mark.slow
def test__trainer__tasks_read_in_parts__same_losses(tmp_path: Path) -> None:
    train_reasoner(TINY, tmp_path / "once", LONGER, TASKS)
    train_reasoner(TINY, tmp_path / "parts", replace(LONGER, gradient_accumulation_steps=3), TASKS)
    assert_same_history(tmp_path / "once", tmp_path / "parts")


def read_losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test__trainer__tracker__told_arguments_steps_and_validation(tmp_path: Path) -> None:
    validation = Validation(TASKS.validation(Generator().manual_seed(0)))
    tracker = LossFile(tmp_path / "log")
    train_reasoner(TINY, tmp_path, SHORT, TASKS, validation=validation, log_with=tracker)
    first, *lines = [json.loads(line) for line in tracker.path.read_text().splitlines()]
    assert first["max_steps"] == 4
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates[0] == 0.0  # the warm-up begins there
    assert max(rates) == rates[1] > rates[2] > rates[3] > 0


@pytest.mark.slow
def test__trainer__two_processes__same_losses(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    (tmp_path / "train.py").write_text(TRAIN_TWICE)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, command in (("one", []), ("two", [*launch, *quiet])):
        (tmp_path / name).mkdir()
        arguments = [sys.executable, *command, str(tmp_path / "train.py"), str(tmp_path / name)]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    for kind in ("kernel", "gpt2"):
        losses = [read_losses(tmp_path / name / f"{kind}.jsonl") for name in ("one", "two")]
        assert len(losses[0]) == LONG.max_steps
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test__trainer__killed_at_some_moment_and_resumed__same_weights_bit_for_bit(tmp_path: Path) -> None:
    whole = train_reasoner(TINY, tmp_path / "whole", OFTEN_SAVED, TASKS)
    # as many threads as here, since sums are rounded in another order by more
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", TRAIN_UNTIL_KILLED, str(tmp_path / "parts")]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "parts").glob("checkpoint-*")):
            time.sleep(0.01)
        time.sleep(random.random() * 0.5)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert read_history(tmp_path / "parts")[-1]["step"] < OFTEN_SAVED.max_steps
    parts = train_reasoner(TINY, tmp_path / "parts", OFTEN_SAVED, TASKS, resume=True)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in parts.state_dict().items())


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one precision for the life of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerate")
def test__trainer__mixed_precision__linear_algebra_stays_exact(tmp_path: Path) -> None:
    reasoner = TartReasoner(TINY)
    batch = TASKS.draw(0, Generator().manual_seed(0))
    with torch.no_grad():
        exact, _ = Objective(reasoner)(batch)
        with torch.autocast("cpu", torch.bfloat16):
            geometry = Geometry.of(batch.embeddings)
            distances = half_squared_distances(geometry.support, geometry.support)
            assert distances.dtype == torch.float32
            half, _ = Objective(reasoner)(batch)
    torch.testing.assert_close(distances, half_squared_distances(geometry.support, geometry.support))
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0.02)
    train_reasoner(TINY, tmp_path, replace(SHORT, mixed_precision="bf16"), TASKS)
    assert all(
        tensor.dtype == torch.float32 for tensor in TartReasoner.from_pretrained(tmp_path).state_dict().values()
    )


def test__trainer__diverged__said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers_tart.training.trainer.DIVERGED", 0.5)
    with pytest.raises(FloatingPointError, match=r"diverged: at step 2 .* Lower the learning rate"):
        train_reasoner(TINY, tmp_path, SHORT, TASKS)


@pytest.mark.slow
def test__card__of_a_run__preset_steps_tasks_and_validation(tmp_path: Path) -> None:
    validation = Validation(TASKS.validation(Generator().manual_seed(0)), {"probe": logistic_regression})
    train_reasoner(TINY, tmp_path, SHORT, TASKS, validation=validation, preset="tiny")
    card = (tmp_path / "README.md").read_text()
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["tasks_seen"] > 4
    for line in (
        "| preset | `tiny` |",
        "| seed | 0 |",
        "| steps | 4 of 4 |",
        f"| tasks seen | {record['tasks_seen']} |",
    ):
        assert line in card
    assert "| tasks | reasoner | probe |" in card
    last, probe = (
        record["history"][-1]["validation"]["k=16, 2 classes"],
        record["references"]["probe"]["k=16, 2 classes"],
    )
    cells = [f"{score['loss']:.3f} ({score['accuracy']:.3f})" for score in (last, probe)]
    assert f"| k=16, 2 classes | {' | '.join(cells)} |" in card


@pytest.mark.slow
def test__trainer__with_and_without_validation__same_weights(tmp_path: Path) -> None:
    validation = Validation(TASKS.validation(Generator().manual_seed(0)))
    first = train_reasoner(TINY, tmp_path / "a", SHORT, TASKS, validation=validation).state_dict()
    second = train_reasoner(TINY, tmp_path / "b", SHORT, TASKS).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
