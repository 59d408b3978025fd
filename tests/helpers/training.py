"""Tiny reasoners, tasks and arguments of training runs, and a tracker of losses."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate.tracking import GeneralTracker

from transformers_tart import TartReasonerConfig
from transformers_tart.training.presets import ReasonerTrainingArguments
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks


TINY = TartReasonerConfig(
    hidden_size=8,
    num_hidden_layers=1,
    head_dim=4,
    num_softmax_heads=1,
    kernel_sharpness=[0.0, 2.0],
    ridge_strengths=[0.1],
)
TASKS = RichTasks(Ramp(20, 20, 0, 1), Ramp(5, 5, 0, 1), query_size=8, effort=300)
SHORT = ReasonerTrainingArguments(max_steps=4, save_steps=2, warmup_steps=1)
LONGER = replace(SHORT, max_steps=7, save_steps=3)
LONG = replace(SHORT, max_steps=50, save_steps=20)
OFTEN_SAVED = replace(SHORT, max_steps=80, save_steps=3)
PAPER = PaperTasks(Ramp(2, 4, 1, 2), Ramp(6, 9, 1, 3), dim=4, batch_size=6)
TINY_GPT2 = TartReasonerConfig(
    architecture="gpt2", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, n_positions=10, num_components=4
)


@dataclass
class LossFile(GeneralTracker):
    """Writes the loss of every step to a file, as exactly as it is."""

    path: Path
    name = "loss_file"
    requires_logging_directory = False

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def tracker(self) -> None:
        """There is nothing behind it."""

    def store_init_configuration(self, values: dict) -> None:
        """Begin the file with the arguments of the run."""
        self.path.write_text(json.dumps(values) + "\n")

    def log(self, values: dict, step: int | None = None, **kwargs: object) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
