"""Measures every method on every support set of every task, a line for each as soon as it is done.

What is finished is never repeated, what fails is noted with its error and tried again by the next run, and under
`accelerate launch` the processes share the work.
"""

import itertools
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.evaluation.memory import PeakMemory
from transformers_tart.evaluation.methods import METHODS, Models, Support, TaskContext
from transformers_tart.evaluation.metric import TartMetric
from transformers_tart.evaluation.records import Key, Record, append_record, calibration_bins, read_records
from transformers_tart.evaluation.tasks import GROUPS, SEEDS, TASKS, Task, load_task
from transformers_tart.files import write_whole


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Plan:
    r"""
    What is measured.

    Args:
        tasks (`list[str]`):
            Names, files or folders as [`load_task`] takes them, or names of groups.
        methods (`list[str]`):
            Names of the registry.
        sizes (`list[int]`):
            Sizes k of the support sets.
        seeds (`list[int]`):
            One support set of each size for each.
        sampling (`str`, *optional*, defaults to `"balanced"`):
            `"balanced"` or `"natural"`.
        max_test (`int`, *optional*):
            Most test texts of a task.
        test_seed (`int`, *optional*, defaults to 0):
            Seed of the draw of test texts.
    """

    tasks: Sequence[str]
    methods: Sequence[str]
    sizes: Sequence[int] = (16, 32, 64)
    seeds: Sequence[int] = SEEDS
    sampling: str = "balanced"
    max_test: int | None = None
    test_seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"Unknown methods {unknown}; choose from {', '.join(METHODS)}.")
        if not self.tasks or not self.sizes or not self.seeds or min(self.sizes) < 2:
            raise ValueError("Give at least one task, one seed, and one k, of 2 or more.")

    @property
    def task_names(self) -> list[str]:
        """Return the names of the tasks, groups taken apart, each once however its path is spelled."""
        names = (name for given in self.tasks for name in GROUPS.get(given, (given,)))
        return list({os.path.realpath(name) if os.path.exists(name) else name: name for name in names}.values())

    def check_tasks(self) -> None:
        """Check that all tasks exist, before any of them is loaded.

        Raises:
            ValueError: When one of them is neither a file, a folder nor in the registry.
        """
        absent = [name for name in self.task_names if name not in TASKS and not os.path.exists(name)]
        if absent:
            raise ValueError(
                f"There are no tasks {absent}: no files or folders, and the registry has {', '.join(TASKS)} and the "
                f"groups {', '.join(GROUPS)}."
            )

    def cells(self, tasks: Iterable[Task]) -> "Iterator[Cell]":
        """Yield what is measured, each once however often it is named."""
        named = (dict.fromkeys(names) for names in (self.sizes, self.seeds, self.methods))
        return itertools.starmap(Cell, itertools.product(tasks, *named))


def choose_seeds(count: int) -> list[int]:
    """Return the seeds of the published code, and more where those do not suffice."""
    if count < 1:
        raise ValueError(f"The number of seeds is {count}; it must be at least 1.")
    others = (seed for seed in itertools.count() if seed not in SEEDS)
    return list(itertools.islice(itertools.chain(SEEDS, others), count))


class Cell(NamedTuple):
    """A method on one support set."""

    task: Task
    k: int
    seed: int
    method: str

    @property
    def key(self) -> Key:
        """As records have it."""
        return self.task.name, self.k, self.seed, self.method


def evaluate(plan: Plan, models: Models, folder: str | Path) -> int:
    r"""
    Measure all that a plan asks for and that a folder does not hold yet.

    Args:
        plan ([`Plan`]):
            What is measured.
        models ([`Models`]):
            On what.
        folder (`str` or `Path`):
            Where the lines go: `results.jsonl`, or one such file a process.

    Returns:
        `int`: how many of the cells that this process ran have failed.

    Raises:
        ValueError: When no task can be loaded, or the folder holds results of another model or of other settings.
        OSError: When nothing can be written; what was finished before stays.
    """
    plan.check_tasks()
    state, folder = PartialState(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(plan, models)
    records = _read_finished(folder, models, settings)
    state.wait_for_everyone()
    if state.is_main_process:
        write_whole(folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n")
    tasks = list(_load_tasks(plan))
    _check_same_tasks(folder, records, tasks)
    finished = {record.key for record in records if record.error is None}
    mine = _share([cell for cell in plan.cells(tasks) if cell.key not in finished], state)
    contexts = {task.name: TaskContext(task, models) for task in tasks}
    output = folder / ("results.jsonl" if state.num_processes == 1 else f"results.{state.process_index}.jsonl")
    failed = 0
    with tqdm(total=len(mine), desc="measuring", unit="cell", disable=not state.is_main_process) as bar:
        for cell in mine:
            record = measure_cell(contexts[cell.task.name], cell, plan.sampling)
            append_record(output, record)
            failed += record.error is not None
            bar.update()
    state.wait_for_everyone()
    return failed


def _settings(plan: Plan, models: Models) -> dict[str, Any]:
    """Return what measurements depend on besides their keys."""
    reference = BackboneReference.of(models.name, models.revision)
    return {
        "model": reference.name,
        "revision": reference.revision,
        "reasoner": models.reasoner_name,
        "dtype": models.dtype,
        "max_length": models.max_length,
        "sampling": plan.sampling,
        "max_test": plan.max_test,
        "test_seed": plan.test_seed,
    }


def _read_finished(folder: Path, models: Models, settings: Mapping[str, Any]) -> list[Record]:
    """Read what a folder holds already, and check that it was measured with the same settings."""
    records = read_records(folder)
    others = sorted({record.model for record in records} - {models.title})
    if others:
        raise ValueError(f"{folder} holds results of {others}, not of {models.title}; choose another folder.")
    file = folder / SETTINGS_FILE
    if records and not file.exists():
        logger.warning(f"{folder} holds results without {file.name}, so their settings are not checked.")
    if not records or not file.exists():  # version 0.1 wrote none
        return records
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        changed = [name for name, given in settings.items() if kept[name] != given]
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f"{file} is damaged ({err}); choose another folder.") from err
    if changed:
        differing = " and ".join(f"{name} {kept[name]!r}, not {settings[name]!r}" for name in changed)
        raise ValueError(f"{folder} holds results of {differing}; choose another folder.")
    return records


def _check_same_tasks(folder: Path, records: Sequence[Record], tasks: Sequence[Task]) -> None:
    """Check that the tasks are as large as those that were measured before under their names."""
    sizes = {task.name: (task.num_classes, len(task.test_texts)) for task in tasks}
    for record in records:
        measured = (record.num_classes, record.test_rows)
        if sizes.get(record.task, measured) != measured:
            raise ValueError(
                f"{folder} holds results of a task {record.task} with (classes, test rows) {measured}, which has "
                f"{sizes[record.task]} now; choose another folder."
            )


def _load_tasks(plan: Plan) -> Iterator[Task]:
    """Load the tasks; log the errors of those that fail, and go on with the others."""
    names, loaded = plan.task_names, dict[str, str]()
    for name in names:
        try:
            task = load_task(name, plan.max_test, plan.test_seed)
        except (ValueError, TypeError, OSError) as err:
            if len(names) == 1:
                raise
            logger.error(f"The task {name} is left out: {err}")
            continue
        if task.name in loaded:
            raise ValueError(
                f"{loaded[task.name]} and {name} are both called {task.name}; results go by names, so rename one of "
                "them, or measure it into another folder."
            )
        loaded[task.name] = name
        yield task
    if not loaded:
        raise ValueError(f"None of the tasks {names} can be loaded; see the messages above.")


def _share(cells: Sequence[Cell], state: PartialState) -> list[Cell]:
    """What this process measures: all sizes of a task and seed, which share their embeddings."""
    groups = list(dict.fromkeys((cell.task.name, cell.seed) for cell in cells))
    own = {group for i, group in enumerate(groups) if i % state.num_processes == state.process_index}
    return [cell for cell in cells if (cell.task.name, cell.seed) in own]


def measure_cell(context: TaskContext, cell: Cell, sampling: str) -> Record:
    """One method on one support set; an error becomes part of the record."""
    task, models = context.task, context.models
    facts: dict[str, Any] = {"task": task.name, "num_classes": task.num_classes, "k": cell.k, "seed": cell.seed}
    facts |= {"method": cell.method, "model": models.title}
    facts |= {"device": str(models.device), "test_rows": len(task.test_texts)}
    start, saved, memory = time.perf_counter(), context.saved_seconds, PeakMemory(models.device)
    metrics: dict[str, float] = {}
    calibration: list[list[float]] = []
    error = None
    try:
        with memory:
            probabilities = _predict(context, cell, sampling)
        metrics, calibration = _measure(probabilities, task.test_labels)
    except Exception as err:  # a method may fail in any way, and the others go on
        error = f"{type(err).__name__}: {err}"
        logger.error(f"{cell.method} has failed on {task.name}, k={cell.k}, seed {cell.seed}: {error}")
    # as if the method were the only one: embeddings that another has computed before it cost it the same
    seconds = time.perf_counter() - start + context.saved_seconds - saved
    return Record(
        **facts, metrics=metrics, calibration=calibration, seconds=seconds, memory_mb=memory.megabytes, error=error
    )


def _predict(context: TaskContext, cell: Cell, sampling: str) -> Tensor:
    task = cell.task
    probabilities = METHODS[cell.method](context, Support.draw(task, cell.k, cell.seed, sampling))
    expected = (len(task.test_texts), task.num_classes)
    if probabilities.shape != expected or not torch.isfinite(probabilities).all():
        raise ValueError(f"The method gave probabilities {tuple(probabilities.shape)}, not finite ones {expected}.")
    return probabilities


def _measure(probabilities: Tensor, labels: Sequence[int]) -> tuple[dict[str, float], list[list[float]]]:
    """All metrics, and what a calibration curve needs."""
    metrics = TartMetric().compute(prediction_scores=probabilities, references=labels)
    odd = {name: value for name, value in (metrics or {}).items() if not math.isfinite(value)}
    if odd:
        raise ValueError(f"The probabilities of the method give the metrics {odd}.")
    return metrics or {}, calibration_bins(probabilities, torch.tensor(labels))


__all__ = ["Cell", "Plan", "choose_seeds", "evaluate", "measure_cell"]
