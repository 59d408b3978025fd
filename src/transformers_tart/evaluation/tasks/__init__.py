"""Tasks to evaluate on: texts and labels, for support sets and for tests."""

from transformers_tart.evaluation.tasks.loading import load_task
from transformers_tart.evaluation.tasks.registry import GROUPS, SEEDS, TASKS
from transformers_tart.evaluation.tasks.task import SAMPLINGS, Task


__all__ = ["GROUPS", "SAMPLINGS", "SEEDS", "TASKS", "Task", "load_task"]
