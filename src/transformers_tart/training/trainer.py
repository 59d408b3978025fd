"""Trains a reasoner on synthetic tasks, on accelerate."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Generator
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup
from transformers.utils import logging

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.modeling_reasoner import TartReasoner
from transformers_tart.training.checkpoints import load_checkpoint, save_checkpoint
from transformers_tart.training.tasks import TaskBatch, chance, draw_batch, log_uniform


logger = logging.get_logger(__name__)

TRAINING_RECORD = "training.json"


@dataclass(frozen=True)
class ReasonerTrainingArguments:
    r"""
    What to train on and for how long.

    Args:
        max_steps (`int`, *optional*, defaults to 10000):
            Optimiser steps.
        learning_rate (`float`, *optional*, defaults to 1.5e-3):
            Peak of the cosine schedule.
        weight_decay (`float`, *optional*, defaults to 0.01):
            AdamW's.
        warmup_steps (`int`, *optional*, defaults to 200):
            Steps of linear warm-up.
        max_grad_norm (`float`, *optional*, defaults to 1.0):
            Gradients are clipped to this norm.
        examples_per_step (`int`, *optional*, defaults to 4500):
            Support and query examples of a step, divided by half the number of classes; decides the batch size.
        min_support (`int`, *optional*, defaults to 6), max_support (`int`, *optional*, defaults to 300):
            Support sizes are log-uniform between these, and at least twice the number of classes.
        query_size (`int`, *optional*, defaults to 32):
            Queries of a task.
        max_classes (`int`, *optional*, defaults to 40):
            Two classes in 40% of the steps, else 3 to this many, log-uniform.
        save_steps (`int`, *optional*, defaults to 500):
            Steps between two saves, and two lines of the log.
        seed (`int`, *optional*, defaults to 0):
            Seed of the weights and of every task.
    """

    max_steps: int = 10_000
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup_steps: int = 200
    max_grad_norm: float = 1.0
    examples_per_step: int = 4500
    min_support: int = 6
    max_support: int = 300
    query_size: int = 32
    max_classes: int = 40
    save_steps: int = 500
    seed: int = 0


def draw_training_batch(args: ReasonerTrainingArguments, generator: Generator) -> tuple[TaskBatch, int]:
    """A batch of tasks of random size and number of classes, and its support size."""
    two = args.max_classes == 2 or chance(0.4, generator)
    classes = 2 if two else int(log_uniform(3, args.max_classes + 1, generator))
    support = max(int(log_uniform(args.min_support, args.max_support + 1, generator)), 2 * classes)
    rows = (support + args.query_size) * max(1.0, classes / 2)
    batch_size = max(2, int(args.examples_per_step / rows))
    return draw_batch(batch_size, support, args.query_size, classes, generator), support


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

    arguments: dict[str, float]
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
            raise ValueError(
                f"The checkpoint is of a run with other {changed}; give the same, or train without resuming."
            )
        self.generator.set_state(state["generator"])
        self.step, self.running, self.history = state["step"], state["running"], state["history"]

    def note(self, **values: float) -> None:
        """Fold the values of a step into the averages."""
        for name, value in values.items():
            self.running[name] = 0.99 * self.running.get(name, value) + 0.01 * value


def train_reasoner(
    config: TartReasonerConfig,
    output_dir: str | Path,
    args: ReasonerTrainingArguments | None = None,
    *,
    resume: bool = False,
    max_minutes: float | None = None,
) -> TartReasoner:
    """Train a reasoner and save it where [`TartReasoner.from_pretrained`] finds it.

    Args:
        config ([`TartReasonerConfig`]):
            What to train; the `kernel` architecture.
        output_dir (`str` or `Path`):
            Folder for the weights, the config, the last checkpoint and `training.json`, the record of the run.
        args ([`ReasonerTrainingArguments`], *optional*):
            Sizes, schedule and seed.
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
    args = args or ReasonerTrainingArguments()
    output_dir, begin = Path(output_dir), time.monotonic()
    accelerator = Accelerator()
    set_seed(args.seed)
    progress = Progress(asdict(args), Generator().manual_seed(args.seed))
    model = TartReasoner(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    scheduler = get_cosine_schedule_with_warmup(optimizer, args.warmup_steps, args.max_steps)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    accelerator.register_for_checkpointing(progress)
    if resume:
        load_checkpoint(accelerator, output_dir)
    model.train()
    bar = tqdm(
        desc="training", initial=progress.step, total=args.max_steps, disable=not accelerator.is_local_main_process
    )
    is_over = progress.step >= args.max_steps
    while not is_over:
        batch, support = draw_training_batch(args, progress.generator)
        loss, accuracy = _train_step(accelerator, model, optimizer, scheduler, batch, support, progress.step + 1, args)
        progress.step += 1
        progress.note(loss=loss, accuracy=accuracy)
        bar.update()
        is_over = progress.step == args.max_steps or _is_late(accelerator, begin, max_minutes)
        if progress.step % args.save_steps == 0 or is_over:
            averages = {name: round(value, 4) for name, value in progress.running.items()}
            progress.history.append({"step": progress.step, **averages})
            bar.set_postfix(progress.history[-1])
            save_reasoner(accelerator, model, output_dir, {"arguments": asdict(args), "history": progress.history})
            save_checkpoint(accelerator, output_dir, progress.step)
    bar.close()
    return accelerator.unwrap_model(model).eval()


def _is_late(accelerator: Accelerator, begin: float, max_minutes: float | None) -> bool:
    """Whether the time is over, of which all processes must think the same."""
    if max_minutes is None:
        return False
    late = torch.tensor(float(time.monotonic() - begin > 60 * max_minutes), device=accelerator.device)
    return accelerator.reduce(late, "sum").item() > 0


def _train_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    batch: TaskBatch,
    support: int,
    step: int,
    args: ReasonerTrainingArguments,
) -> tuple[float, float]:
    """Loss, in units of a blind guess, and accuracy."""
    embeddings, labels = batch.embeddings.to(accelerator.device), batch.labels.to(accelerator.device)
    output = model(
        embeddings[:, :support], labels[:, :support], embeddings[:, support:], labels[:, support:], batch.num_classes
    )
    # in units of a blind guess, so that tasks of many classes weigh no more than binary ones
    loss = output.loss / math.log(batch.num_classes)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"The loss is {loss.item()} at step {step}: lower the learning rate.")
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
    accuracy = (output.logits.argmax(-1) == labels[:, support:]).float().mean()
    return loss.item(), accuracy.item()


def save_reasoner(accelerator: Accelerator, model: torch.nn.Module, output_dir: str | Path, record: dict) -> None:
    """Save the weights, the config and the record of the run from the main process."""
    reasoner: TartReasoner = accelerator.unwrap_model(model)
    state = {name: tensor.detach().clone() for name, tensor in reasoner.state_dict().items()}
    reasoner.save_pretrained(output_dir, is_main_process=accelerator.is_main_process, state_dict=state)
    if accelerator.is_main_process:
        partial = Path(output_dir) / (TRAINING_RECORD + ".tmp")
        partial.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(partial, Path(output_dir) / TRAINING_RECORD)


__all__ = ["ReasonerTrainingArguments", "draw_training_batch", "train_reasoner"]
