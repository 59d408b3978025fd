"""Checkpoints of a run: whole or not there, and only the last one kept."""

import shutil
from pathlib import Path

from accelerate import Accelerator

from transformers_tart.files import explain_full_disk


PREFIX = "checkpoint-"
PARTIAL = "partial-checkpoint"


def find_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the last one last."""
    found = [path for path in folder.glob(PREFIX + "*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write everything that is prepared or registered with the accelerator, then remove the other checkpoints.

    Args:
        accelerator (`Accelerator`):
            Holds the state of the run; called by each of its processes.
        folder (`Path`):
            Of the run.
        step (`int`):
            Finished steps.

    Raises:
        OSError: When the disk is full or the folder cannot be written; the checkpoint before stays.
    """
    partial, whole = folder / PARTIAL, folder / f"{PREFIX}{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        with explain_full_disk(whole):
            accelerator.save_state(str(partial))
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(whole, ignore_errors=True)
        partial.rename(whole)
        for other in find_checkpoints(folder):
            if other != whole:
                shutil.rmtree(other)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path) -> int:
    """Load the last whole checkpoint; returns its step, 0 when there is none."""
    found = find_checkpoints(folder)
    if not found:
        return 0
    accelerator.load_state(str(found[-1]))
    return step_of(found[-1])


__all__ = ["find_checkpoints", "load_checkpoint", "save_checkpoint", "step_of"]
