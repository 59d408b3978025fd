"""A suite of `evaluate`: a classifier on several tasks, each with its own support set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from evaluate import EvaluationSuite
from evaluate.evaluation_suite import SubTask
from transformers import PreTrainedTokenizerBase

from transformers_tart.evaluation.evaluator import TASK, ModelOrPipeline, TartEvaluator
from transformers_tart.evaluation.tasks.registry import TASKS, TaskSource
from transformers_tart.inputs.balance import classes_in_turn


PAPER = ("sst2", "rotten_tomatoes", "sms_spam", "imdb", "civil_comments", "ag_news", "dbpedia_14")


@dataclass
class TartSubTask(SubTask):
    """A task of a [`TartSuite`], with a support set drawn from its data.

    `data`, `subset`, `split` and `data_preprocessor`, which is applied to queries and support set, are as in
    `evaluate.evaluation_suite.SubTask`, and `args_for_task` are further arguments of [`TartEvaluator.compute`], such
    as `label_column`, `metric` or `examples`.
    """

    task_type: str = TASK  # no other is allowed
    support: Dataset | str | None = None  # or split of `data`; that of the pipeline or `examples` by default
    k: int = 64  # examples, the classes in turn
    seed: int = 0  # of the draw
    name: str | None = None  # of the task in the results; that of the data by default

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.support, str) and not isinstance(self.data, str):
            raise ValueError(
                f'support is the split "{self.support}" of data that is loaded already; give a datasets.Dataset.'
            )
        if self.k < 2:
            raise ValueError(f"k is {self.k}; a support set needs at least 2 examples.")


class TartSuite(EvaluationSuite):
    r"""
    [`TartEvaluator`] on a list of tasks.

    Unlike `EvaluationSuite.load`, it takes its tasks from the caller, so no code is downloaded.

    ```python
    >>> tasks = [TartSubTask(data="fancyzhx/ag_news", split="test[:500]", support="train", k=64)]
    >>> TartSuite(tasks).run("EleutherAI/pythia-160m")
    ```

    Args:
        tasks (`list[SubTask]`):
            [`TartSubTask`]s, or `evaluate`'s own, which bring no support set.
        name (`str`, *optional*, defaults to `"tart"`):
            Name of the suite.

    Raises:
        ValueError: On tasks for other evaluators.
    """

    def __init__(self, tasks: Sequence[SubTask], name: str = "tart"):
        super().__init__(name)
        others = sorted({task.task_type for task in tasks} - {TASK})
        if others:
            raise ValueError(f'There are tasks of the types {others}; the tasks of this suite have the type "{TASK}".')
        self.suite = list(tasks)

    @classmethod
    def paper(cls, k: int = 64, seed: int = 0) -> "TartSuite":
        r"""
        Return the text tasks of the paper (arXiv 2306.07536), from the Hub, with all their classes.

        Its YouTube task is not on the Hub. Data sets without labeled test data are classified by their validation
        data (SST-2) or three quarters of their training data (SMS spam). `k` and `seed` are those of [`TartSubTask`].
        """
        return cls([_subtask(TASKS[name], k, seed) for name in PAPER], "tart-paper")

    @staticmethod
    def load(path: str, *args: Any, **kwargs: Any) -> EvaluationSuite:
        """Raise a NotImplementedError: loading a suite would run the code in `path`."""
        raise NotImplementedError(
            "A TartSuite runs no code of others: build it from a list of tasks, or call EvaluationSuite.load."
        )

    def run(
        self,
        model_or_pipeline: ModelOrPipeline | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        device: int | None = None,
    ) -> list[dict[str, Any]]:
        """Evaluate a classifier, loaded once, on every task.

        Return the results of [`TartEvaluator.compute`] for each task, with `task_name` and `data_preprocessor`.
        """
        self.assert_suite_nonempty()
        evaluator = TartEvaluator()
        pipe = evaluator.prepare_pipeline(model_or_pipeline, tokenizer, device=device)
        results = []
        for number, task in enumerate(self.suite):
            name = _name(task, number)
            arguments = dict(task.args_for_task or {})
            data = _load(evaluator, task, task.data, task.split)
            if isinstance(task, TartSubTask) and task.support is not None:
                arguments["examples"] = _draw_examples(evaluator, task, arguments, pipe.model.config.modality)
            preprocessor = None if task.data_preprocessor is None else str(task.data_preprocessor)
            values = evaluator.compute(pipe, data=data, **arguments)
            results.append({**values, "task_name": name, "data_preprocessor": preprocessor})
        return results


def label_toxic(row: dict[str, Any]) -> dict[str, str]:
    """Return the label of a row of Civil Comments: toxic from half of its annotators on."""
    return {"label": "toxic" if row["toxicity"] >= 0.5 else "civil"}


def _subtask(source: TaskSource, k: int, seed: int) -> TartSubTask:
    arguments = None if source.text == "text" else {"input_column": source.text}
    options: dict[str, Any] = {"split": source.test, "support": source.train, "args_for_task": arguments}
    if source.test is None:
        options |= {"split": f"{source.train}[:75%]", "support": f"{source.train}[75%:]"}
    if source.threshold is not None:  # millions of rows, of which few become examples
        options |= {"support": f"{source.train}[:5%]", "data_preprocessor": label_toxic}
    return TartSubTask(data=source.path, k=k, seed=seed, **options)


def _name(task: SubTask, number: int) -> str:
    if isinstance(task, TartSubTask) and task.name is not None:
        return task.name
    if isinstance(task.data, Dataset):
        return task.data.info.dataset_name or f"task {number}"
    return f"{task.data}/{task.subset}" if task.subset else task.data


def _load(evaluator: TartEvaluator, task: SubTask, data: Dataset | str, split: str | None) -> Dataset:
    rows = evaluator.load_data(data, *((task.subset, split) if isinstance(data, str) else ()))
    return rows if task.data_preprocessor is None else rows.map(task.data_preprocessor)


def _draw_examples(evaluator: TartEvaluator, task: TartSubTask, arguments: dict[str, Any], modality: str) -> Dataset:
    """Draw a support set of k rows, with the columns that the pipeline expects."""
    data, split = (task.data, task.support) if isinstance(task.support, str) else (task.support, None)
    rows, label = _load(evaluator, task, data, split), arguments.get("label_column", "label")
    columns = {modality: arguments.get("input_column", "text"), "label": label}
    if arguments.get("second_input_column") is not None:
        columns["text_pair"] = arguments["second_input_column"]
    evaluator.check_required_columns(rows, columns)
    if task.k > len(rows):
        raise ValueError(f"k is {task.k}, but there are {len(rows)} rows to draw examples from.")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(task.seed))
    numbers = np.unique(rows[label], return_inverse=True)[1]
    chosen = order[classes_in_turn(torch.from_numpy(numbers)[order])[: task.k]]
    drawn = rows.select_columns(list(columns.values())).select(chosen.tolist())
    return drawn.rename_columns({column: name for name, column in columns.items() if column != name})
