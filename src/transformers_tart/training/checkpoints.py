"""Files of a training run: the reasoner with its record and card, and checkpoints that are whole or absent.

accelerate unpickles any object that is registered with it. So the state of a run is JSON here, and accelerate loads
only files of tensors and numbers.
"""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from transformers_tart.checks.bounds import read_object
from transformers_tart.errors import CorruptFileError
from transformers_tart.files import explain_full_disk, write_whole
from transformers_tart.hub.card import TrainingFacts, reasoner_card
from transformers_tart.hub.push import CARD_FILE
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.progress import Progress
from transformers_tart.training.validation import Score, Validation


PREFIX = "checkpoint-"
STATES_FILE = "states.json"
PARTIAL = "partial-checkpoint"
TRAINING_RECORD = "training.json"
REASONER = "reasoner"


class State(Protocol):
    """State saved beside the model and optimizer, such as a scheduler; its values fit into JSON."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _find_checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(PREFIX + "*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, *states: State) -> None:
    """Save the objects that the accelerator has prepared and further states, then remove older checkpoints.

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
        for other in _find_checkpoints(folder):
            if other != whole:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path, *states: State) -> int:
    """Load the last whole checkpoint and return its step, 0 when there is none."""
    found = _find_checkpoints(folder)
    if not found:
        return 0
    try:
        saved = read_object(found[-1] / STATES_FILE, STATES_FILE).get("states")
    except (OSError, ValueError) as err:
        raise CorruptFileError(f"The checkpoint {found[-1]} cannot be continued: {err}") from err
    if not isinstance(saved, list) or len(saved) != len(states):
        raise CorruptFileError(f"{STATES_FILE} of the checkpoint {found[-1]} is of another kind of run.")
    for state, values in zip(states, saved, strict=True):
        state.load_state_dict(values)
    try:
        accelerator.load_state(str(found[-1]))
    except (pickle.UnpicklingError, AttributeError, EOFError, LookupError, RuntimeError, TypeError) as err:
        raise CorruptFileError(
            f"The checkpoint {found[-1]} is damaged, or holds other things than tensors and numbers; remove it and "
            f"start anew: {err}"
        ) from err
    return _step_of(found[-1])


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
    record = {
        "arguments": progress.arguments,
        "tasks_seen": progress.tasks_seen,
        "references": {
            name: {shape: vars(score) for shape, score in scores.items()} for name, scores in references.items()
        },
        "history": progress.history,
    }
    facts = _training_facts(progress, references, preset)
    write_whole(output_dir / TRAINING_RECORD, json.dumps(record, indent=2) + "\n")
    write_whole(output_dir / CARD_FILE, str(reasoner_card(reasoner.config, reasoner.card_facts, facts)))


def _training_facts(progress: Progress, references: dict[str, dict[str, Score]], preset: str | None) -> TrainingFacts:
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
    table = {
        shape: {REASONER: score, **{name: vars(scores[shape]) for name, scores in references.items()}}
        for shape, score in found.items()
    }
    return TrainingFacts(run, table)


__all__ = ["load_checkpoint", "save_checkpoint", "save_run"]
