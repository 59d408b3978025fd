"""Trains a reasoner on synthetic tasks, on accelerate."""

import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import tqdm
from transformers import get_scheduler

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.modeling_reasoner import TartReasoner
from transformers_tart.training.arguments import ReasonerTrainingArguments
from transformers_tart.training.checkpoints import load_checkpoint, save_checkpoint
from transformers_tart.training.sources import RichTasks, TaskSource, TrainingBatch


TRAINING_RECORD = "training.json"


class Objective(nn.Module):
    """A reasoner that answers with its losses, so that its gradients are shared between processes."""

    def __init__(self, reasoner: TartReasoner):
        super().__init__()
        self.reasoner = reasoner

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Mean loss (tasks,) in units of a blind guess, and accuracy (tasks,) of each task.

        In these units, tasks of many classes weigh no more than binary ones.
        """
        if batch.support_size is None:
            return self._sequence_loss(batch)
        support, query = slice(None, batch.support_size), slice(batch.support_size, None)
        labels = batch.labels[:, query]
        logits = self.reasoner(
            batch.embeddings[:, support],
            batch.labels[:, support],
            batch.embeddings[:, query],
            num_labels=batch.num_classes,
        ).logits
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1) / math.log(batch.num_classes)
        return losses, (logits.argmax(-1) == labels).float().mean(1)

    def _sequence_loss(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Of every example, given those before it (arXiv 2306.07536, section 4.1)."""
        log_odds = self.reasoner.architecture.sequence_logits(batch.embeddings, batch.labels)  # type: ignore[operator]
        losses = binary_cross_entropy_with_logits(log_odds, batch.labels.float(), reduction="none").mean(1)
        return losses / math.log(2), ((log_odds > 0) == batch.labels.bool()).float().mean(1)


@dataclass
class Progress:
    """Where a run is; saved with its checkpoints, together with what it must not be continued without.

    Attributes:
        arguments: of the run.
        generator: draws every task.
        step: finished steps.
        running: moving averages.
        history: averages at each save.
    """

    arguments: dict[str, Any]
    generator: Generator
    step: int = 0
    running: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict[str, object]:
        """Everything, as tensors, numbers and strings."""
        return {
            "arguments": self.arguments,
            "generator": self.generator.get_state(),
            "step": self.step,
            "running": self.running,
            "history": self.history,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: When it is of a run with other arguments.
        """
        changed = sorted(name for name, value in self.arguments.items() if state["arguments"].get(name) != value)
        if changed:
            raise ValueError(f"The checkpoint is of a run with other {changed}; repeat them, or do not resume.")
        self.generator.set_state(state["generator"])
        self.step, self.running, self.history = state["step"], state["running"], state["history"]

    def note(self, **values: float) -> None:
        """Fold the values of a step into the averages."""
        for name, value in values.items():
            self.running[name] = 0.99 * self.running.get(name, value) + 0.01 * value


class Run:
    """What a run consists of: the objective and its optimiser, and where it is."""

    def __init__(self, config: TartReasonerConfig, args: ReasonerTrainingArguments, tasks: TaskSource):
        # without being told, accelerate does not join processes that have no accelerator
        self.accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        self.args, self.tasks = args, tasks
        set_seed(args.seed)
        objective = Objective(TartReasoner(config))
        optimizer = torch.optim.AdamW(objective.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
        # not prepared: accelerate would take as many steps of it as there are processes
        self.scheduler = get_scheduler(args.schedule, optimizer, args.warmup_steps, args.max_steps)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        arguments = {**asdict(args), "tasks": {"source": type(tasks).__name__, **asdict(tasks)}}
        self.progress = Progress(arguments, Generator().manual_seed(args.seed))
        self.accelerator.register_for_checkpointing(self.scheduler, self.progress)

    @property
    def reasoner(self) -> TartReasoner:
        """The bare reasoner."""
        return self.accelerator.unwrap_model(self.objective).reasoner

    def train_step(self) -> None:
        """One optimiser step on tasks that the processes share; each draws all, so that their number is no matter."""
        batch = self.tasks.draw(self.progress.step, self.progress.generator)
        totals = torch.zeros(2, device=self.accelerator.device)
        parts = self._parts(batch)
        # gradients are averaged over the processes, which may have unequal numbers of tasks
        weight = self.accelerator.num_processes / len(batch) if self._has_tasks(batch) else 0.0
        for i, part in enumerate(parts):
            is_last = i == len(parts) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.objective):
                losses, right = self.objective(part)
                self.accelerator.backward(losses.sum() * weight)
            totals += torch.stack([losses.detach().sum(), right.sum()]) * weight
        loss, accuracy = self.accelerator.reduce(totals, "mean").tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss} at step {self.progress.step + 1}: lower the learning rate.")
        if self.args.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.progress.note(loss=loss, accuracy=accuracy)

    def _has_tasks(self, batch: TrainingBatch) -> bool:
        return self.accelerator.process_index < len(batch)

    def _parts(self, batch: TrainingBatch) -> list[TrainingBatch]:
        """This process's tasks, on its device; with more processes than tasks, a task that will not count."""
        index, count = self.accelerator.process_index, self.accelerator.num_processes
        mine = batch.share(index, count) if self._has_tasks(batch) else batch.share(0, len(batch))
        parts = min(self.args.gradient_accumulation_steps, len(mine))
        return [mine.share(i, parts).to(self.accelerator.device) for i in range(parts)]

    def save(self, output_dir: Path) -> None:
        """Write weights, config, record and checkpoint."""
        averages = {name: round(value, 4) for name, value in self.progress.running.items()}
        self.progress.history.append({"step": self.progress.step, **averages})
        record = {"arguments": self.progress.arguments, "history": self.progress.history}
        save_reasoner(self.accelerator, self.reasoner, output_dir, record)
        save_checkpoint(self.accelerator, output_dir, self.progress.step)


def train_reasoner(
    config: TartReasonerConfig,
    output_dir: str | Path,
    args: ReasonerTrainingArguments | None = None,
    tasks: TaskSource | None = None,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
) -> TartReasoner:
    """Train a reasoner and save it where [`TartReasoner.from_pretrained`] finds it.

    Args:
        config ([`TartReasonerConfig`]):
            What to train.
        output_dir (`str` or `Path`):
            Folder for the weights, the config, the last checkpoint and `training.json`, the record of the run.
        args ([`ReasonerTrainingArguments`], *optional*):
            Optimiser, schedule and seed.
        tasks ([`TaskSource`], *optional*):
            Where the tasks come from; [`RichTasks`] when not given.
        resume (`bool`, *optional*, defaults to `False`):
            Whether to go on from the checkpoint in `output_dir`, if there is one: to the same weights, bit for bit on
            a CPU, as without the interruption. Otherwise a checkpoint there is replaced.
        max_minutes (`float`, *optional*):
            Save and stop after this time; `resume` goes on.

    Returns:
        [`TartReasoner`]: the reasoner as far as it is trained, in evaluation mode.

    Raises:
        FloatingPointError: When the loss is not finite; the last saved weights stay in `output_dir`.
        ValueError: When the checkpoint to resume is of a run with other arguments.
    """
    args, output_dir, begin = args or ReasonerTrainingArguments(), Path(output_dir), time.monotonic()
    run = Run(config, args, tasks or RichTasks())
    if resume:
        load_checkpoint(run.accelerator, output_dir)
    run.objective.train()
    is_quiet = not run.accelerator.is_local_main_process
    bar = tqdm(desc="training", initial=run.progress.step, total=args.max_steps, disable=is_quiet)
    is_over = run.progress.step >= args.max_steps
    while not is_over:
        run.train_step()
        bar.update()
        is_over = run.progress.step == args.max_steps or _is_late(run.accelerator, begin, max_minutes)
        if run.progress.step % args.save_steps == 0 or is_over:
            run.save(output_dir)
            bar.set_postfix(run.progress.history[-1])
    bar.close()
    return run.reasoner.eval()


def _is_late(accelerator: Accelerator, begin: float, max_minutes: float | None) -> bool:
    """Whether the time is over, of which all processes must think the same."""
    if max_minutes is None:
        return False
    late = torch.tensor(float(time.monotonic() - begin > 60 * max_minutes), device=accelerator.device)
    return accelerator.reduce(late, "sum").item() > 0


def save_reasoner(accelerator: Accelerator, reasoner: TartReasoner, output_dir: Path, record: dict) -> None:
    """Save the weights, the config and the record of the run from the main process."""
    state = {name: tensor.detach().clone() for name, tensor in reasoner.state_dict().items()}
    reasoner.save_pretrained(output_dir, is_main_process=accelerator.is_main_process, state_dict=state)
    if accelerator.is_main_process:
        partial = output_dir / (TRAINING_RECORD + ".tmp")
        partial.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(partial, output_dir / TRAINING_RECORD)


__all__ = ["TRAINING_RECORD", "train_reasoner"]
