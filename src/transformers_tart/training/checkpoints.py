"""Files of a training run: the reasoner with its record and card, and checkpoints that are whole or absent.

accelerate unpickles any object that is registered with it. So the state of a run is JSON here, and accelerate loads
only files of tensors and numbers.
"""

import json
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from transformers_tart.checks.bounds import read_object
from transformers_tart.errors import CorruptFileError
from transformers_tart.files import explain_full_disk, write_whole
from transformers_tart.hub.card import TrainingFacts, reasoner_card
from transformers_tart.hub.push import CARD_FILE
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.sources import TrainingBatch
from transformers_tart.training.validation import Validation


PREFIX = "checkpoint-"
STATES_FILE = "states.json"
PARTIAL = "partial-checkpoint"
TRAINING_RECORD = "training.json"
REASONER = "reasoner"


@dataclass
class Progress:
    """The position of a run, saved with its checkpoints; a resumed run must have the same arguments."""

    arguments: dict[str, Any]
    random_state: Tensor  # of the task generator after the last finished step
    step: int = 0  # finished ones
    tasks_seen: int = 0
    running: dict[str, float] = field(default_factory=dict)  # moving averages
    history: list[dict[str, Any]] = field(default_factory=list)  # averages and validation at each save

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**vars(self), "random_state": self.random_state.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state of a run with the same arguments."""
        if missing := sorted(vars(self).keys() - state.keys()):
            raise ValueError(f"The checkpoint lacks {missing}; start anew.")
        arguments = json.loads(json.dumps(self.arguments))
        if changed := sorted(name for name, value in arguments.items() if state["arguments"].get(name) != value):
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


def _find_checkpoints(folder: Path) -> dict[int, Path]:
    names = {path.name.removeprefix(PREFIX): path for path in folder.glob(PREFIX + "*")}
    return {int(step): path for step, path in names.items() if step.isdigit()}


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, *states: Any) -> None:
    """Save the objects that the accelerator has prepared and further states, then remove older checkpoints.

    The values of the states, such as that of a scheduler, fit into JSON.
    Each process calls this function. After an OSError, such as that of a full disk, the previous checkpoint stays.
    """
    partial, whole = folder / PARTIAL, folder / f"{PREFIX}{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        with explain_full_disk(whole):
            accelerator.save_state(str(partial))
            if accelerator.is_main_process:
                text = json.dumps({"states": [state.state_dict() for state in states]})
                (partial / STATES_FILE).write_text(text, encoding="utf-8")
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        for other in _find_checkpoints(folder).values():
            if other != whole:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path, *states: Any) -> int:
    """Load the last whole checkpoint and return its step, 0 when there is none."""
    found = _find_checkpoints(folder)
    if not found:
        return 0
    step = max(found)
    last = found[step]
    try:
        saved = read_object(last / STATES_FILE, STATES_FILE).get("states")
    except (OSError, ValueError) as err:
        raise CorruptFileError(f"The checkpoint {last} cannot be continued: {err}") from err
    if not isinstance(saved, list) or len(saved) != len(states):
        raise CorruptFileError(f"{STATES_FILE} of the checkpoint {last} is of another kind of run.")
    for state, values in zip(states, saved, strict=True):
        state.load_state_dict(values)
    try:
        accelerator.load_state(str(last))
    except (pickle.UnpicklingError, AttributeError, EOFError, LookupError, RuntimeError, TypeError) as err:
        raise CorruptFileError(
            f"The checkpoint {last} is damaged, or holds other things than tensors and numbers; remove it and "
            f"start anew: {err}"
        ) from err
    return step


def save_run(
    accelerator: Accelerator,
    reasoner: TartReasoner,
    progress: Progress,
    validation: Validation | None,
    preset: str | None,
    output_dir: Path,
) -> None:
    """Save weights, config, `training.json` and card from the main process.

    After an OSError, such as that of a full disk, each file is the older or the new one.
    """
    if not accelerator.is_main_process:
        return
    state = {name: tensor.detach().clone() for name, tensor in reasoner.state_dict().items()}
    reasoner.save_pretrained(output_dir, state_dict=state)
    references = {} if validation is None else validation.reference_scores
    by_shape = {name: {shape: vars(score) for shape, score in scores.items()} for name, scores in references.items()}
    record = {"arguments": progress.arguments, "tasks_seen": progress.tasks_seen, "references": by_shape}
    record["history"] = progress.history
    facts = _training_facts(progress, by_shape, preset)
    write_whole(output_dir / TRAINING_RECORD, json.dumps(record, indent=2) + "\n")
    write_whole(output_dir / CARD_FILE, str(reasoner_card(reasoner.config, reasoner.card_facts, facts)))


def _training_facts(progress: Progress, references: dict[str, Any], preset: str | None) -> TrainingFacts:
    """Return the card's facts about a run: its arguments, and a table of its last validation."""
    arguments, last = progress.arguments, progress.history[-1]
    run: dict[str, object] = {"preset": f"`{preset}`"} if preset else {}
    run |= {
        "seed": arguments["seed"],
        "steps": f"{progress.step:,} of {arguments['max_steps']:,}",
        "tasks seen": f"{progress.tasks_seen:,}",
        "training loss": f"{last['loss']:.3f} of a blind guess's, accuracy {last['accuracy']:.3f} (moving averages)",
    }
    found: dict[str, dict[str, Any]] = last.get("validation", {})
    scores = {REASONER: found, **references}
    return TrainingFacts(run, {shape: {name: scores[name][shape] for name in scores} for shape in found})
