"""Training arguments of reasoners, and named recipes."""

from dataclasses import dataclass, replace
from typing import Any

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.training.evidence_tasks import EvidenceTasks
from transformers_tart.training.sources import PaperTasks, Ramp, RichTasks, TaskSource


@dataclass(frozen=True)
class ReasonerTrainingArguments:
    """Optimizer (AdamW), schedule and seed of a training run; a ValueError for a number of steps below 1."""

    max_steps: int = 10_000
    learning_rate: float = 1.5e-3  # peak of the schedule
    adam_beta2: float = 0.999  # decay of the mean of squared gradients
    weight_decay: float = 0.01
    schedule: str = "cosine"  # after the warm-up: a name of `transformers.get_scheduler`
    warmup_steps: int = 200
    max_grad_norm: float | None = 1.0  # to which gradients are clipped; `None` for no clipping
    gradient_accumulation_steps: int = 1  # parts in which a process reads its tasks of a step
    mixed_precision: str | None = None  # "bf16" or "no"; accelerate's configuration when `None`
    save_steps: int = 500  # between two saves, each with a validation and an entry of the record
    seed: int = 0  # of the weights and of every task

    def __post_init__(self) -> None:
        for name in ("max_steps", "gradient_accumulation_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class Preset:
    """A recipe: architecture and sizes, tasks, and training arguments."""

    summary: str  # for the command line's help
    config: dict[str, Any]  # fields of `TartReasonerConfig`
    tasks: TaskSource
    arguments: ReasonerTrainingArguments
    base: str | None = None  # reasoner whose reading of a view is kept

    def build_config(self) -> TartReasonerConfig:
        """Build a new config."""
        return TartReasonerConfig(**self.config)


# Batch size, learning rate, steps and curricula of the published configurations: Adam at a constant rate.
_PAPER = ReasonerTrainingArguments(
    max_steps=20_001, learning_rate=1e-4, weight_decay=0.0, warmup_steps=0, schedule="constant", max_grad_norm=None
)
_PAPER_SIZES = {"architecture": "gpt2", "hidden_size": 256, "num_hidden_layers": 12, "num_attention_heads": 8}
_PAPER_DIMS = Ramp(start=4, end=16, increment=4, interval=1000)

PRESETS: dict[str, Preset] = {
    "kernel": Preset(
        "the reasoner inside this package: any width, any number of classes; trains on a CPU",
        {"architecture": "kernel", "holds_out_means": True},
        RichTasks(),
        ReasonerTrainingArguments(max_steps=1_500, learning_rate=3e-3),
    ),
    "weighing": Preset(
        "the weighing of views and label hints, for the reasoner inside this package; trains on a CPU",
        {"architecture": "kernel", "holds_out_means": True, "weighing_size": 32},
        EvidenceTasks(),
        ReasonerTrainingArguments(max_steps=4_000, learning_rate=3e-3, weight_decay=0.0, save_steps=2_000),
        base="kernel",
    ),
    "paper-66": Preset(
        "the head of the paper, up to 65 examples; needs a GPU",
        {**_PAPER_SIZES, "n_positions": 66},
        PaperTasks(_PAPER_DIMS, Ramp(start=18, end=66, increment=8, interval=1000)),
        _PAPER,
    ),
    "paper-258": Preset(
        "the head of the paper, up to 257 examples; needs a GPU",
        {**_PAPER_SIZES, "n_positions": 258},
        PaperTasks(_PAPER_DIMS, Ramp(start=18, end=258, increment=30, interval=1000)),
        replace(_PAPER, max_steps=35_001),
    ),
    "paper-small": Preset(
        "the head and tasks of the paper, small enough for a CPU, up to 65 examples",
        {**_PAPER_SIZES, "hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "n_positions": 66},
        PaperTasks(
            Ramp(start=1, end=16, increment=1, interval=250),  # from two dimensions it learns late or never
            Ramp(start=18, end=66, increment=8, interval=500),
            batch_size=64,
        ),
        ReasonerTrainingArguments(max_steps=5_500, learning_rate=1e-3, adam_beta2=0.95, weight_decay=0.0),
    ),
}
