"""Evaluation tasks: labeled texts, images or recordings for support sets and for tests."""

from transformers_tart.evaluation.tasks.loading import load_task
from transformers_tart.evaluation.tasks.registry import GROUPS, SEEDS, TASKS
from transformers_tart.evaluation.tasks.task import MODALITIES, SAMPLINGS, Item, Task


__all__ = ["GROUPS", "MODALITIES", "SAMPLINGS", "SEEDS", "TASKS", "Item", "Task", "load_task"]
