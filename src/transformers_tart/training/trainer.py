"""The training loop of reasoners, on accelerate."""

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import tqdm
from transformers import get_scheduler

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.loading.checksums import FIELD
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.checkpoints import Progress, load_checkpoint, save_checkpoint, save_run
from transformers_tart.training.presets import ReasonerTrainingArguments
from transformers_tart.training.sources import RichTasks, TaskSource, TaskStream, TrainingBatch
from transformers_tart.training.validation import Validation, overall, predict


VALIDATION_TIMEOUT = timedelta(hours=2)  # the other processes wait while the main one validates
DIVERGED = 3.0  # mean loss, in units of a blind guess, from which training does not recover

Tracker: TypeAlias = str | GeneralTracker


class Objective(nn.Module):
    """A reasoner whose forward pass returns losses, so that accelerate shares its gradients between processes."""

    def __init__(self, reasoner: TartReasoner):
        super().__init__()
        self.reasoner = reasoner

    def forward(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return the mean loss (tasks,) and accuracy (tasks,) of each task.

        The unit of the loss is that of a blind guess, so that tasks of many classes weigh no more than binary ones.
        """
        if batch.support_size is None:
            return self._sequence_loss(batch)
        logits, labels = predict(self.reasoner, batch)
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none").mean(1) / math.log(batch.num_classes)
        return losses, (logits.argmax(-1) == labels).float().mean(1)

    def _sequence_loss(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of every example, given those before it (arXiv 2306.07536, section 4.1)."""
        log_odds = self.reasoner.architecture.sequence_logits(batch.embeddings, batch.labels)  # type: ignore[operator]
        losses = binary_cross_entropy_with_logits(log_odds, batch.labels.float(), reduction="none").mean(1)
        return losses / math.log(2), ((log_odds > 0) == batch.labels.bool()).float().mean(1)


class Run:
    """A training run: objective, optimizer and progress."""

    def __init__(
        self,
        config: TartReasonerConfig,
        args: ReasonerTrainingArguments,
        tasks: TaskSource,
        log_with: Tracker | list[Tracker] | None = None,
        project_dir: Path | None = None,
        base: TartReasoner | None = None,
    ):
        # accelerate joins processes without an accelerator only when cpu is set
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=args.mixed_precision,
            log_with=log_with,
            project_dir=project_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=VALIDATION_TIMEOUT)],
        )
        _check_trackers(self.accelerator, log_with)
        self.args, self.tasks = args, tasks
        set_seed(args.seed)
        objective = Objective(TartReasoner(config))
        if base is not None:
            objective.reasoner.architecture.load_state_dict(base.architecture.state_dict())
            objective.reasoner.architecture.requires_grad_(False)
        learned = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        decay = {"betas": (0.9, args.adam_beta2), "weight_decay": args.weight_decay}
        optimizer = torch.optim.AdamW(learned, lr=args.learning_rate, **decay)  # type: ignore[arg-type]
        # not prepared: accelerate would step it once for each process
        self.scheduler = get_scheduler(args.schedule, optimizer, args.warmup_steps, args.max_steps)
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.draws_on = self.accelerator.device if tasks.on_device else torch.device("cpu")
        # the draws of an accelerator are others than those of a CPU
        place = {} if self.draws_on.type == "cpu" else {"device": self.draws_on.type}
        arguments = {
            **asdict(args),
            "mixed_precision": self.accelerator.mixed_precision,
            "reasoner": {name: getattr(config, name) for name in TartReasonerConfig.__annotations__ if name != FIELD},
            "tasks": {"source": type(tasks).__name__, **asdict(tasks), **place},
        }
        self.progress = Progress(arguments, Generator(self.draws_on).manual_seed(args.seed).get_state())
        self.states = (self.progress, self.scheduler)

    @property
    def reasoner(self) -> TartReasoner:
        """The unwrapped reasoner."""
        return self.accelerator.unwrap_model(self.objective).reasoner

    def train_step(self, stream: TaskStream) -> None:
        """Take an optimizer step on tasks that each process draws in full and reads a share of."""
        batch, random_state = stream.take()
        totals = torch.zeros(2, device=self.accelerator.device)
        parts, weight = self._parts(batch)
        for i, part in enumerate(parts):
            with nullcontext() if i == len(parts) - 1 else self.accelerator.no_sync(self.objective):
                losses, right = self.objective(part)
                self.accelerator.backward(losses.sum() * weight)
            totals += torch.stack([losses.detach().sum(), right.sum()]) * weight
        loss, accuracy = self.accelerator.reduce(totals, "mean").tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss} at step {self.progress.step + 1}: lower the learning rate.")
        if self.args.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        rate = self.scheduler.get_last_lr()[0]
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.progress.finish_step(batch, random_state, loss=loss, accuracy=accuracy)
        self.accelerator.log({"loss": loss, "accuracy": accuracy, "learning_rate": rate}, step=self.progress.step)
        average = self.progress.running["loss"]
        if self.progress.step > self.args.warmup_steps and average > DIVERGED:
            raise FloatingPointError(
                f"Training has diverged: at step {self.progress.step} the mean loss is {average:.1f} times that of a "
                "blind guess. Lower the learning rate, or lengthen the warm-up."
            )

    def _parts(self, batch: TrainingBatch) -> tuple[list[TrainingBatch], float]:
        """Return this process's tasks on its device, and their weight; with more processes than tasks, 0."""
        index, count, device = self.accelerator.process_index, self.accelerator.num_processes, self.accelerator.device
        has_tasks = index < len(batch)
        mine = batch.share(index, count) if has_tasks else batch.share(0, len(batch))
        parts = min(self.args.gradient_accumulation_steps, len(mine))
        # gradients are averaged over the processes, which may have unequal numbers of tasks
        return [mine.share(i, parts).to(device) for i in range(parts)], count / len(batch) if has_tasks else 0.0

    def save(self, output_dir: Path, validation: Validation | None, preset: str | None) -> None:
        """Validate, then save weights, config, record, card and checkpoint; none when a weight is not finite."""
        if not all(torch.isfinite(parameter).all() for parameter in self.reasoner.parameters()):
            raise FloatingPointError(
                f"The weights are not finite after step {self.progress.step}: lower the learning rate."
            )
        entry: dict[str, Any] = {"step": self.progress.step}
        entry |= {name: round(value, 4) for name, value in self.progress.running.items()}
        if validation is not None and self.accelerator.is_main_process:
            scores = validation.measure(self.reasoner)
            entry["validation"] = {shape: asdict(score) for shape, score in scores.items()}
            mean = overall(scores)
            values = {"validation_loss": mean.loss, "validation_accuracy": mean.accuracy}
            self.accelerator.log(values, step=self.progress.step)
        self.progress.history.append(entry)
        save_run(self.accelerator, self.reasoner, self.progress, validation, preset, output_dir)
        save_checkpoint(self.accelerator, output_dir, self.progress.step, *self.states)


def train_reasoner(
    config: TartReasonerConfig,
    output_dir: str | Path,  # of the weights, the config, the last checkpoint, a card and `training.json`
    args: ReasonerTrainingArguments | None = None,
    tasks: TaskSource | None = None,  # `RichTasks` by default
    *,
    validation: Validation | None = None,  # at every save; it does not change the training
    resume: bool = False,  # from the checkpoint in the folder, if there is one
    max_minutes: float | None = None,  # after which to save and stop
    log_with: Tracker | list[Tracker] | None = None,  # trackers of accelerate, such as "tensorboard"
    preset: str | None = None,  # its name, for the card
    base: TartReasoner | None = None,  # whose reading of a view is kept, so that only the weighing is trained
) -> TartReasoner:
    """Train a reasoner, save it where [`TartReasoner.from_pretrained`] finds it, and return it in evaluation mode.

    On a CPU with as many threads, the weights of a resumed run are the same, bit for bit, as those of an uninterrupted
    one. When the loss is not finite, training has diverged, or the disk is full, the last checkpoint stays.
    """
    args, output_dir, begin = args or ReasonerTrainingArguments(), Path(output_dir), time.monotonic()
    output_dir.mkdir(parents=True, exist_ok=True)  # fail before training where the folder cannot be made
    run = Run(config, args, tasks or RichTasks(), log_with, output_dir, base)
    if resume:
        load_checkpoint(run.accelerator, output_dir, *run.states)
    facts = {k: v if isinstance(v, int | float | str) else json.dumps(v) for k, v in run.progress.arguments.items()}
    run.accelerator.init_trackers("transformers-tart", facts)
    run.objective.train()
    stream = TaskStream(run.tasks, run.progress.step, run.progress.random_state, run.draws_on)
    is_quiet = not run.accelerator.is_local_main_process
    bar = tqdm(desc="training", initial=run.progress.step, total=args.max_steps, disable=is_quiet)
    is_over = run.progress.step >= args.max_steps
    try:
        while not is_over:
            run.train_step(stream)
            bar.set_postfix({name: f"{value:.3f}" for name, value in run.progress.running.items()}, refresh=False)
            bar.update()
            is_over = run.progress.step == args.max_steps or _is_late(run.accelerator, begin, max_minutes)
            if run.progress.step % args.save_steps == 0 or is_over:
                run.save(output_dir, validation, preset)
    finally:
        bar.close()
        stream.close()
        for tracker in run.accelerator.trackers:
            tracker.finish()
    return run.reasoner.eval()


def _check_trackers(accelerator: Accelerator, log_with: Tracker | Sequence[Tracker] | None) -> None:
    """Raise for trackers whose package is missing, which accelerate leaves out with a warning."""
    asked = log_with if isinstance(log_with, list | tuple) else [log_with]
    found = {str(getattr(tracker, "value", tracker)) for tracker in accelerator.log_with} | {"all"}
    if missing := [name for name in asked if isinstance(name, str) and name not in found]:
        raise ValueError(f"The trackers {missing} are not installed: pip install them, or leave log_with out.")


def _is_late(accelerator: Accelerator, begin: float, max_minutes: float | None) -> bool:
    """Return whether the time is over in any process."""
    if max_minutes is None:
        return False
    late = torch.tensor(float(time.monotonic() - begin > 60 * max_minutes), device=accelerator.device)
    return accelerator.reduce(late, "sum").item() > 0
