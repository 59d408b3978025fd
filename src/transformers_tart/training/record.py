"""What a run leaves beside its weights: `training.json`, the whole record, and a card for people."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from transformers_tart.files import write_whole
from transformers_tart.hub.card import TrainingFacts, reasoner_card
from transformers_tart.hub.push import CARD_FILE
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.training.progress import Progress
from transformers_tart.training.validation import Score, Validation


TRAINING_RECORD = "training.json"
REASONER = "reasoner"


def save_run(
    accelerator: Accelerator,
    reasoner: TartReasoner,
    progress: Progress,
    validation: Validation | None,
    preset: str | None,
    output_dir: Path,
) -> None:
    """Save the weights, the config, the record and the card of the run from the main process.

    Raises:
        OSError: When the disk is full or the folder cannot be written; each file there is an older or the new one.
    """
    if not accelerator.is_main_process:
        return
    state = {name: tensor.detach().clone() for name, tensor in reasoner.state_dict().items()}
    reasoner.save_pretrained(output_dir, state_dict=state)
    references = {} if validation is None else validation.reference_scores
    facts = training_facts(progress, references, preset)
    record = {
        "arguments": progress.arguments,
        "tasks_seen": progress.tasks_seen,
        "references": {
            name: {shape: vars(score) for shape, score in scores.items()} for name, scores in references.items()
        },
        "history": progress.history,
    }
    write_whole(output_dir / TRAINING_RECORD, json.dumps(record, indent=2) + "\n")
    write_whole(output_dir / CARD_FILE, str(reasoner_card(reasoner.config, reasoner.card_facts, facts)))


def training_facts(progress: Progress, references: dict[str, dict[str, Score]], preset: str | None) -> TrainingFacts:
    """What the card says of a run: its arguments, and a table of its last validation."""
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


__all__ = ["TRAINING_RECORD", "save_run", "training_facts"]
