"""Runs of every method on every support set of every task, each written to the results as soon as it is done.

Finished runs are not repeated, failed ones are noted with their error and tried again the next time, and under
`accelerate launch` the processes share the work.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.evaluation.memory import PeakMemory
from transformers_tart.evaluation.methods.base import Seconds, Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.registry import METHODS, WITHOUT_EXAMPLES, ZERO_SHOT
from transformers_tart.evaluation.metrics import SUM_TOLERANCE, calibration_bins, measure
from transformers_tart.evaluation.records import Key, Record, append_record, read_records
from transformers_tart.evaluation.tasks import GROUPS, SEEDS, TASKS, Task, load_task
from transformers_tart.files import write_whole


logger = logging.get_logger(__name__)

SETTINGS_FILE = "settings.json"


@dataclass(frozen=True)
class Plan:
    """The runs to make: each method on a support set of each task, size and seed."""

    tasks: Sequence[str]  # names, files or folders as [`load_task`] takes them, or names of groups
    methods: Sequence[str]
    sizes: Sequence[int] = (16, 32, 64)  # 0 is a support set without examples
    seeds: Sequence[int] = SEEDS
    sampling: str = "balanced"  # or "natural"
    max_test: int | None = None  # largest number of test inputs of a task
    test_seed: int = 0  # of the draw of test inputs
    per_class: Sequence[int] | None = None  # examples of each class, in place of `sizes`

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ValueError(f"Unknown methods {unknown}; choose from {', '.join(METHODS)}.")
        sizes = self.sizes if self.per_class is None else self.per_class
        if (
            not self.tasks
            or not sizes
            or not self.seeds
            or min(sizes) < 0
            or 1 in (sizes if self.per_class is None else ())
        ):
            raise ValueError(
                "Give at least one task, one seed, and one k, 0 or 2 and more, or number of examples of each class, "
                "0 or more."
            )
        if self.per_class is not None and self.sampling != "balanced":
            raise ValueError(
                f'With a number of examples of each class, sampling is "balanced", not "{self.sampling}".'
            )

    @property
    def task_names(self) -> list[str]:
        """The names of the tasks, with groups taken apart, each once however its path is spelled."""
        names = (name for given in self.tasks for name in GROUPS.get(given, (given,)))
        return list({os.path.realpath(name) if os.path.exists(name) else name: name for name in names}.values())

    def check_tasks(self) -> None:
        """Raise a ValueError for tasks that do not exist, before any of them is loaded."""
        absent = [name for name in self.task_names if name not in TASKS and not os.path.exists(name)]
        if absent:
            raise ValueError(
                f"There are no tasks {absent}: no files or folders, and the registry has {', '.join(TASKS)} and the "
                f"groups {', '.join(GROUPS)}."
            )

    def runs(self, tasks: Sequence[Task]) -> "Iterator[Run]":
        """Yield the runs, each once however often it is named.

        Without examples nothing is drawn, so there is one seed, and only the methods that need no example are run.
        """
        seeds, methods = list(dict.fromkeys(self.seeds)), list(dict.fromkeys(self.methods))
        starts = 0 in (self.sizes if self.per_class is None else self.per_class)
        unshown = [method for method in methods if method in (WITHOUT_EXAMPLES if starts else (ZERO_SHOT,))]
        if starts and len(unshown) < len(methods):
            absent = ", ".join(method for method in methods if method not in unshown)
            logger.warning(f"Without examples these methods are left out, since they need some: {absent}.")
        shown = [method for method in methods if method != ZERO_SHOT]
        for task in tasks:
            for k, per_class in self._sizes_of(task).items():
                drawn, named = (seeds[:1], unshown) if k == 0 else (seeds, shown)
                for seed, method in itertools.product(drawn, named):
                    yield Run(task, k, seed, method, per_class)

    def _sizes_of(self, task: Task) -> dict[int, int | None]:
        """Return the sizes of support sets, each with the number of examples of each class that was asked for."""
        sizes: dict[int, int | None] = {}
        if ZERO_SHOT in self.methods:
            sizes[0] = None if self.per_class is None else 0
        for count in self.sizes if self.per_class is None else self.per_class:
            sizes.setdefault(*((count, None) if self.per_class is None else (task.size_of(count), count)))
        return sizes


def choose_seeds(count: int) -> list[int]:
    """Return the seeds of the published code, and more where those do not suffice."""
    if count < 1:
        raise ValueError(f"The number of seeds is {count}; it must be at least 1.")
    others = (seed for seed in itertools.count() if seed not in SEEDS)
    return list(itertools.islice(itertools.chain(SEEDS, others), count))


class Run(NamedTuple):
    """A method on one support set."""

    task: Task
    k: int
    seed: int
    method: str
    per_class: int | None = None  # examples of each class that were asked for

    @property
    def key(self) -> Key:
        """The key of its record."""
        return self.task.name, self.k, self.seed, self.method


def evaluate(plan: Plan, models: Models, folder: str | Path) -> int:
    """Make all runs of a plan that a folder of results does not hold yet, and return how many have failed.

    The folder gets `results.jsonl`, or such a file of each process. The count is that of all processes.

    Raises:
        ValueError: When no task can be loaded, the folder holds results of another model or of other settings, or all
            runs of the plan have failed.
        OSError: When nothing can be written; what was finished before stays.
        MissingPackageError: If psutil is not installed, and the model is not on a CUDA device.
    """
    PeakMemory(models.device)
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
    runs = list(plan.runs(tasks))
    left = [run for run in runs if run.key not in finished]
    contexts = {task.name: TaskContext(task, models) for task in tasks}
    output = folder / ("results.jsonl" if state.num_processes == 1 else f"results.{state.process_index}.jsonl")
    errors = []
    for run in tqdm(_share(left, state), desc="measuring", unit="run", disable=not state.is_main_process):
        record = measure_run(contexts[run.task.name], run, plan.sampling)
        append_record(output, record)
        errors += [] if record.error is None else [record.error]
    state.wait_for_everyone()
    errors = gather_object(errors)
    if errors and len(errors) == len(runs):
        raise ValueError(f"All {len(runs)} runs have failed, the first with {errors[0]}")
    return len(errors)


def _settings(plan: Plan, models: Models) -> dict[str, Any]:
    """Return the settings on which records depend besides their keys."""
    reference = BackboneReference.of(models.name, models.revision)
    return {
        "model": reference.name,
        "revision": reference.revision,
        "reasoner": models.reasoner_name,
        "views": "default" if models.views is None else models.views,
        "dtype": models.loading_dtype,
        "max_length": models.max_length,
        "max_prompt": models.max_prompt,
        "sampling": plan.sampling,
        "max_test": plan.max_test,
        "test_seed": plan.test_seed,
    }


def _read_finished(folder: Path, models: Models, settings: Mapping[str, Any]) -> list[Record]:
    """Read the records of a folder, and check that they were made with the same settings."""
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
        # older files lack these
        kept = {"views": None, "max_prompt": None, **json.loads(file.read_text(encoding="utf-8"))}
        changed = [name for name, given in settings.items() if kept[name] != given]
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f"{file} is damaged ({err}); choose another folder.") from err
    if changed:
        differing = " and ".join(f"{name} {kept[name]!r}, not {settings[name]!r}" for name in changed)
        raise ValueError(f"{folder} holds results of {differing}; choose another folder.")
    return records


def _check_same_tasks(folder: Path, records: Sequence[Record], tasks: Sequence[Task]) -> None:
    """Check that the tasks are as large as those of the same names in the records."""
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


def _share(runs: Sequence[Run], state: PartialState) -> list[Run]:
    """Return the runs of this process: all sizes and methods of a task and seed, which share their embeddings."""
    groups = list(dict.fromkeys((run.task.name, run.seed) for run in runs))
    own = {group for i, group in enumerate(groups) if i % state.num_processes == state.process_index}
    return [run for run in runs if (run.task.name, run.seed) in own]


def measure_run(context: TaskContext, run: Run, sampling: str) -> Record:
    """Return the record of a run; an error becomes part of it."""
    task, models = context.task, context.models
    start, saved, memory = Seconds.now(), context.saved, PeakMemory(models.device)
    metrics: dict[str, float] = {}
    calibration: list[list[float]] = []
    error = None
    try:
        with memory.watch():
            probabilities = _predict(context, run, sampling)
        labels = torch.tensor(task.test_labels)
        calibration = calibration_bins(probabilities, labels)
        metrics = measure(probabilities.argmax(-1), labels, probabilities)
    except Exception as err:  # a method may fail in any way, and the others go on
        error = f"{type(err).__name__}: {err}"
        logger.error(f"{run.method} has failed on {task.name}, k={run.k}, seed {run.seed}: {error}")
    # embeddings that another method has computed before count as if this one had computed them
    spent = Seconds.now() - start + context.saved - saved
    return Record(
        task=task.name,
        num_classes=task.num_classes,
        k=run.k,
        seed=run.seed,
        method=run.method,
        model=models.title,
        metrics=metrics,
        calibration=calibration,
        seconds=spent.wall,
        memory_mb=memory.megabytes,
        device=str(models.device),
        test_rows=len(task.test_texts),
        error=error,
        views=models.composed_views(task.modality),
        cpu_seconds=spent.cpu,
        per_class=run.per_class,
    )


def _predict(context: TaskContext, run: Run, sampling: str) -> Tensor:
    task = run.task
    probabilities = METHODS[run.method](context, Support.draw(task, run.k, run.seed, sampling))
    expected = (len(task.test_texts), task.num_classes)
    if probabilities.shape != expected or not torch.isfinite(probabilities).all():
        raise ValueError(f"The method gave probabilities {tuple(probabilities.shape)}, not finite ones {expected}.")
    if probabilities.min() < 0 or (probabilities.sum(1) - 1).abs().max() > SUM_TOLERANCE:
        raise ValueError("The method gave rows that are no probabilities; they must be at least 0 and sum to 1.")
    return probabilities
