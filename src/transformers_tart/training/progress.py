"""The position of a training run, and its stream of tasks."""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from transformers_tart.training.sources import TaskSource, TrainingBatch


@dataclass
class Progress:
    """The position of a run, saved with its checkpoints; a resumed run must have the same arguments.

    Attributes:
        arguments: arguments of the run.
        random_state: state of the task generator after the last finished step.
        step: finished steps.
        tasks_seen: tasks of all finished steps.
        running: moving averages.
        history: averages and validation at each save.
    """

    arguments: dict[str, Any]
    random_state: Tensor
    step: int = 0
    tasks_seen: int = 0
    running: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**vars(self), "random_state": self.random_state.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state of a run with the same arguments."""
        missing = sorted(vars(self).keys() - state.keys())
        if missing:
            raise ValueError(f"The checkpoint lacks {missing}; start anew.")
        arguments = json.loads(json.dumps(self.arguments))
        changed = sorted(name for name, value in arguments.items() if state["arguments"].get(name) != value)
        if changed:
            raise ValueError(f"The checkpoint is of a run with other {changed}; repeat them, or do not resume.")
        for name in vars(self):
            setattr(self, name, state[name])
        self.random_state = torch.tensor(state["random_state"], dtype=torch.uint8)

    def finish_step(self, batch: TrainingBatch, random_state: Tensor, **values: float) -> None:
        """Count a step and fold its values into the averages."""
        self.step += 1
        self.tasks_seen += len(batch)
        self.random_state = random_state
        for name, value in values.items():
            self.running[name] = 0.99 * self.running.get(name, value) + 0.01 * value


class TaskStream:
    """A stream of tasks that draws those of the next step in the background; the order of the draws is fixed."""

    def __init__(self, tasks: TaskSource, step: int, random_state: Tensor):
        self.tasks, self.generator = tasks, Generator()
        self.generator.set_state(random_state)
        self.worker = ThreadPoolExecutor(1, "tasks")
        self.step, self.pending = step, self._submit(step)

    def take(self) -> tuple[TrainingBatch, Tensor]:
        """Return the tasks of the next step, and the state of the generator after them."""
        drawn = self.pending.result()
        self.step += 1
        self.pending = self._submit(self.step)
        return drawn

    def close(self) -> None:
        """Wait for the draw in progress."""
        self.worker.shutdown(wait=True, cancel_futures=True)

    def _submit(self, step: int) -> Future[tuple[TrainingBatch, Tensor]]:
        return self.worker.submit(lambda: (self.tasks.draw(step, self.generator), self.generator.get_state()))


__all__ = ["Progress", "TaskStream"]
