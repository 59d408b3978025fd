"""Reasoners that can be trained by name."""

from dataclasses import dataclass
from typing import Any

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.training.arguments import ReasonerTrainingArguments
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, TaskSource


@dataclass(frozen=True)
class Preset:
    """An architecture and its sizes, what it is trained on, and how long.

    Attributes:
        summary: one line for the help of the command line.
        config: fields of [`TartReasonerConfig`].
        tasks: where its tasks come from.
        arguments: of the training.
    """

    summary: str
    config: dict[str, Any]
    tasks: TaskSource
    arguments: ReasonerTrainingArguments

    def build_config(self) -> TartReasonerConfig:
        """A new config."""
        return TartReasonerConfig(**self.config)


# batch, rate, steps and curricula of the published configurations, which use Adam at a constant rate
_PAPER = ReasonerTrainingArguments(
    max_steps=20_001, learning_rate=1e-4, weight_decay=0.0, warmup_steps=0, schedule="constant", max_grad_norm=None
)
_PAPER_SIZES = {"architecture": "gpt2", "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 8}
_PAPER_DIMS = Ramp(start=4, end=16, increment=4, interval=1000)

PRESETS: dict[str, Preset] = {
    "kernel": Preset(
        "the reasoner inside this package: any width, any number of classes; CPU",
        {"architecture": "kernel"},
        RichTasks(),
        ReasonerTrainingArguments(max_steps=1_500, learning_rate=3e-3),
    ),
    "paper-66": Preset(
        "the paper's head, up to 65 examples; GPU",
        {**_PAPER_SIZES, "n_positions": 66},
        PaperTasks(_PAPER_DIMS, Ramp(start=18, end=66, increment=8, interval=1000)),
        _PAPER,
    ),
    "paper-258": Preset(
        "the paper's head, up to 257 examples; GPU",
        {**_PAPER_SIZES, "n_positions": 258},
        PaperTasks(_PAPER_DIMS, Ramp(start=18, end=258, increment=30, interval=1000)),
        ReasonerTrainingArguments(**{**vars(_PAPER), "max_steps": 35_001}),
    ),
    "paper-small": Preset(
        "the paper's head and tasks in a size that a CPU can train, up to 65 examples",
        {
            "architecture": "gpt2",
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "n_positions": 66,
        },
        PaperTasks(
            Ramp(start=2, end=16, increment=2, interval=1000),
            Ramp(start=18, end=66, increment=8, interval=1000),
            batch_size=64,
        ),
        ReasonerTrainingArguments(max_steps=11_000, learning_rate=1e-3, weight_decay=0.0),
    ),
}

__all__ = ["PRESETS", "Preset"]
