"""Runs of every method on every support set of every task, each written to the results as soon as it is done.

Finished runs are not repeated, failed ones are noted with their error and tried again the next time, and under
`accelerate launch` the processes share the work.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
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
from transformers_tart.evaluation.methods.base import Support, TaskContext, read_clocks
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.prompting import PROMPTS
from transformers_tart.evaluation.methods.registry import METHODS, PROMPTING
from transformers_tart.evaluation.metrics import SUM_TOLERANCE, judge
from transformers_tart.evaluation.plan import Durations, Plan, Run, format_seconds, in_time, share
from transformers_tart.evaluation.records import SETTINGS_FILE, Record, append_record, find_files, read_records
from transformers_tart.evaluation.tasks import Task, load_task
from transformers_tart.files import locked, write_whole


logger = logging.get_logger(__name__)

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"  # without the estimate of tqdm


class Outcome(NamedTuple):
    """Numbers of runs of all processes."""

    failed: int
    left: int  # not made for want of time
    planned: int


def evaluate(plan: Plan, models: Models, folder: str | Path, max_minutes: float | None = None) -> Outcome:
    """Make the runs of a plan that a folder of results does not hold yet.

    The folder gets `results.jsonl`, or `results.N.jsonl` of process N of all machines. Machines may share the folder,
    or have one each: what is finished in any of them is not repeated.

    After `max_minutes` no process begins another run; each makes one at least.
    """
    if max_minutes is not None and not max_minutes > 0:
        raise ValueError(f"max_minutes is {max_minutes}; it must be above 0.")
    deadline = time.perf_counter() + (math.inf if max_minutes is None else 60 * max_minutes)
    PeakMemory(models.device)
    plan.check_tasks()
    state, folder = PartialState(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(plan, models)
    with _own_file(folder, state) as output:
        records = _read_finished(folder, models, settings)
        tasks = list(_load_tasks(plan))
        _check_same_tasks(folder, records, tasks)
        _check_same_processes(settings, tasks)
        _write_settings(folder, settings, state)
        runs = list(plan.runs(tasks))
        own, durations = _share_left(runs, records, state)
        made = []
        for record in _measure(in_time(own, durations, deadline), tasks, models, plan.sampling, len(own)):
            append_record(output, record)
            durations.add(record)
            made.append(record)
    state.wait_for_everyone()
    left = sum(gather_object([len(own) - len(made)]))
    errors = gather_object([record.error for record in made if record.error is not None])
    if errors and len(errors) == len(runs):
        raise ValueError(f"All {len(runs)} runs have failed, the first with {errors[0]}")
    return Outcome(len(errors), left, len(runs))


@contextmanager
def _own_file(folder: Path, state: PartialState) -> Iterator[Path]:
    """Lock the file of results of this process, when no process of another command writes to the folder.

    Workers live on after a kill of `accelerate launch` alone.
    """
    output = folder / ("results.jsonl" if state.num_processes == 1 else f"results.{state.process_index}.jsonl")
    with ExitStack() as stack:
        try:
            for _ in _in_turn(state):
                for path in find_files(folder):
                    with locked(path, wait=False):
                        pass
            output.touch()
            stack.enter_context(locked(output, wait=False))
        except BlockingIOError as err:
            raise OSError(
                f"Another command writes results to {folder}, or a process of one that was killed; wait for its end, "
                "or end it."
            ) from err
        yield output


def _in_turn(state: PartialState) -> Iterator[None]:
    """Yield once in each process, when those before it are through."""
    for index in range(state.num_processes):
        if index == state.process_index:
            yield
        state.wait_for_everyone()


def _write_settings(folder: Path, settings: Mapping[str, Any], state: PartialState) -> None:
    """Write the settings to the folder of each process, which may be one folder or that of a machine."""
    file, text = folder / SETTINGS_FILE, json.dumps(settings, indent=1) + "\n"
    for _ in _in_turn(state):
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            write_whole(file, text)


def _share_left(runs: Sequence[Run], records: Sequence[Record], state: PartialState) -> tuple[list[Run], Durations]:
    """Return those runs of this process that are in no folder, with failed ones at the end, and the estimates."""
    bare = [replace(record, calibration=[], confusion=None, wrong=None) for record in records]
    everywhere = gather_object(bare)
    tried = {record.key for record in everywhere}
    finished = {record.key for record in everywhere if record.error is None}
    left = sorted((run for run in runs if run.key not in finished), key=lambda run: run.key in tried)
    durations = Durations(everywhere)
    return share(left, durations, state.num_processes)[state.process_index], durations


def _check_same_processes(settings: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Check that all processes have the same settings and tasks."""
    sizes = {f"task {task.name}": f"{task.num_classes} classes, {len(task.test_texts)} test rows" for task in tasks}
    first, *others = gather_object([{**settings, **sizes}])
    for other in others:
        names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
        if names:
            differing = " and ".join(f"{name} {first.get(name)!r} and {other.get(name)!r}" for name in names)
            raise ValueError(f"Processes differ in {differing}; give all machines the same command, model and tasks.")


def _settings(plan: Plan, models: Models) -> dict[str, Any]:
    """Return the settings on which records depend besides their keys."""
    reference = BackboneReference.of(models.name, models.revision)
    return {
        "model": reference.name,
        "revision": reference.revision,
        "reasoner": models.reasoner_name,
        "views": "default" if models.views is None else models.views,
        "prompt": models.prompt,
        "dtype": models.loading_dtype,
        "max_length": models.max_length,
        "max_prompt": models.max_prompt,
        "prompts": PROMPTS,
        "sampling": plan.sampling,
        "max_test": plan.max_test,
        "test_seed": plan.test_seed,
        "columns": dict(plan.columns),
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
        lacking = dict.fromkeys(("views", "prompt", "max_prompt", "prompts"))  # from older files
        kept = {**lacking, "columns": {}, **json.loads(file.read_text(encoding="utf-8"))}
        if not any(record.method in PROMPTING for record in records):
            kept["prompts"] = settings["prompts"]
        changed = [name for name, given in settings.items() if kept[name] != given]
    except (ValueError, KeyError, TypeError) as err:
        raise ValueError(f"{file} is damaged ({err}); choose another folder.") from err
    if changed:
        differing = " and ".join(f"{name} {kept[name]!r}, not {settings[name]!r}" for name in changed)
        raise ValueError(f"{folder} holds results of {differing}; choose another folder.")
    return records


def _check_same_tasks(folder: Path, records: Sequence[Record], tasks: Sequence[Task]) -> None:
    """Check that the tasks are those of the same names in the records."""
    sizes = {task.name: (task.num_classes, len(task.test_texts)) for task in tasks}
    digests = {task.name: (None, task.digest) for task in tasks}  # older records have none
    for record in records:
        measured = (record.num_classes, record.test_rows)
        if sizes.get(record.task, measured) != measured:
            raise ValueError(
                f"{folder} holds results of a task {record.task} with (classes, test rows) {measured}, which has "
                f"{sizes[record.task]} now; choose another folder."
            )
        if record.digest not in digests.get(record.task, (record.digest,)):
            raise ValueError(
                f"{folder} holds results of a task {record.task} with other texts or labels; choose another folder."
            )


def _load_tasks(plan: Plan) -> Iterator[Task]:
    """Load the tasks; log the errors of those that fail, and go on with the others."""
    names, loaded = plan.task_names, dict[str, str]()
    for name in names:
        try:
            task = load_task(name, plan.max_test, plan.test_seed, plan.columns)
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


def _measure(
    scheduled: Iterator[tuple[Run, float | None]], tasks: Sequence[Task], models: Models, sampling: str, total: int
) -> Iterator[Record]:
    """Yield the record of each run, with a progress bar in one process of a machine."""
    contexts = {task.name: TaskContext(task, models) for task in tasks}
    with tqdm(total=total, desc="measuring", bar_format=BAR, disable=not PartialState().is_local_main_process) as bar:
        for run, seconds in scheduled:
            bar.set_postfix_str("" if seconds is None else f"about {format_seconds(seconds)} left")
            yield measure_run(contexts[run.task.name], run, sampling)
            bar.update()


def measure_run(context: TaskContext, run: Run, sampling: str) -> Record:
    """Return the record of a run; an error becomes part of it."""
    task, models = context.task, context.models
    start, saved, memory = read_clocks(), context.saved, PeakMemory(models.device)
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
    shared = context.saved - saved
    wall, cpu = (read_clocks() - start + shared).tolist()
    return Record(
        task=task.name,
        num_classes=task.num_classes,
        k=run.k,
        seed=run.seed,
        method=run.method,
        model=models.title,
        seconds=wall,
        memory_mb=memory.megabytes,
        device=str(models.device),
        test_rows=len(task.test_texts),
        error=error,
        views=models.composed_views(task.modality),
        cpu_seconds=cpu,
        per_class=run.per_class,
        label_names=list(task.label_names),
        shared_seconds=float(shared[0]),
        digest=task.digest,
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
