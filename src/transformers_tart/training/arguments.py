"""The arguments of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReasonerTrainingArguments:
    r"""
    Optimizer, schedule and seed of a training run.

    Args:
        max_steps (`int`, *optional*, defaults to 10000):
            Optimizer steps.
        learning_rate (`float`, *optional*, defaults to 1.5e-3):
            Peak of the schedule.
        weight_decay (`float`, *optional*, defaults to 0.01):
            Weight decay of AdamW.
        schedule (`str`, *optional*, defaults to `"cosine"`):
            Learning rate schedule after the warm-up: a name of `transformers.get_scheduler`.
        warmup_steps (`int`, *optional*, defaults to 200):
            Steps of linear warm-up.
        max_grad_norm (`float`, *optional*, defaults to 1.0):
            Norm to which gradients are clipped; `None` for no clipping.
        gradient_accumulation_steps (`int`, *optional*, defaults to 1):
            Number of parts in which a process reads its tasks of a step.
        mixed_precision (`str`, *optional*):
            `"bf16"` or `"no"`; accelerate's configuration when not given. The linear algebra of the `kernel`
            architecture stays in float32.
        save_steps (`int`, *optional*, defaults to 500):
            Steps between two saves, each with a validation and an entry of the record.
        seed (`int`, *optional*, defaults to 0):
            Seed of the weights and of every task.

    Raises:
        ValueError: When a number of steps is below 1.
    """

    max_steps: int = 10_000
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup_steps: int = 200
    max_grad_norm: float | None = 1.0
    gradient_accumulation_steps: int = 1
    mixed_precision: str | None = None
    save_steps: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_steps", "gradient_accumulation_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


__all__ = ["ReasonerTrainingArguments"]
