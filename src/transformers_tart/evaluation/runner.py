"""Runs of every method on every support set of every task, each written to the results as soon as it is done.

Finished runs are not repeated, failed ones are noted with their error and tried again the next time, and under
`accelerate launch` the processes share the work.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.metrics import SUM_TOLERANCE, judge
from transformers_tart.evaluation.plan import Plan, Run
from transformers_tart.evaluation.records import SETTINGS_FILE, Record, append_record, read_records
from transformers_tart.evaluation.tasks import Task, load_task
from transformers_tart.files import write_whole


logger = logging.get_logger(__name__)


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
    found: dict[str, Any] = {"metrics": {}, "calibration": []}
    error = None
    try:
        with memory.watch():
            probabilities = _predict(context, run, sampling)
        found = judge(probabilities, torch.tensor(task.test_labels))
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
        seconds=spent.wall,
        memory_mb=memory.megabytes,
        device=str(models.device),
        test_rows=len(task.test_texts),
        error=error,
        views=models.composed_views(task.modality),
        cpu_seconds=spent.cpu,
        per_class=run.per_class,
        label_names=list(task.label_names),
        **found,
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
