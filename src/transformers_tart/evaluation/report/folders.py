"""Folders of results that one report compares, and the tasks that they were measured on."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers_tart.evaluation.records import PATTERNS, SETTINGS_FILE, Key, Record, read_records
from transformers_tart.evaluation.tasks.loading import load_task
from transformers_tart.evaluation.tasks.task import Task


def read_folders(folders: Sequence[str | Path]) -> list[Record]:
    """Read the runs of folders of results; when a task has several models, methods become `method (model)`."""
    found = {str(folder): read_records(folder) for folder in dict.fromkeys(map(str, folders))}
    for folder, records in found.items():
        if not records:
            raise ValueError(f"There are no results in {folder}: no {' or '.join(PATTERNS)} with a run.")
    _check_comparable(found)
    records = [record for own in found.values() for record in own]
    if len({(record.task, record.model) for record in records}) == len({record.task for record in records}):
        return records
    return [replace(record, method=f"{record.method} ({record.model})") for record in records]


def _check_comparable(found: Mapping[str, Sequence[Record]]) -> None:
    folder_of: dict[tuple[Key, str], str] = {}
    measured: dict[str, tuple[dict[str, Any], str]] = {}
    for folder, records in found.items():
        settings = _read_settings(folder)
        for record in records:
            other = folder_of.setdefault((record.key, record.model), folder)
            if other != folder:
                raise ValueError(
                    f"{other} and {folder} both hold {record.method} on {record.task} with k={record.k}, seed "
                    f"{record.seed} and the model {record.model}; report them one by one."
                )
            own = {
                "classes": record.num_classes,
                "test rows": record.test_rows,
                "sampling": settings.get("sampling"),
                "seed of the test rows": settings.get("test_seed"),
            }
            others, first = measured.setdefault(record.task, (own, folder))
            differing = [name for name in own if own[name] != others[name]]
            if differing and first != folder:
                raise ValueError(
                    f"{first} and {folder} cannot be compared on {record.task}: {differing[0]} {others[differing[0]]} "
                    f"and {own[differing[0]]}. Measure both with the same options, or report them one by one."
                )


def _read_settings(folder: str | Path) -> dict[str, Any]:
    """Read the settings of a folder of results; version 0.1 wrote none."""
    file = Path(folder) / SETTINGS_FILE
    if not file.exists():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{file} is damaged ({err}); measure again into another folder.") from err
    if not isinstance(settings, dict):
        raise ValueError(f"{file} holds {type(settings).__name__}, not an object; measure again into another folder.")
    return settings


def load_measured(names: Sequence[str], folders: Sequence[str | Path], records: Sequence[Record]) -> dict[str, Task]:
    """Load tasks with the test rows that were measured, by their names in the records."""
    if not names:
        return {}
    settings = [_read_settings(folder) for folder in folders]
    drawn = {json.dumps([own.get("max_test"), own.get("test_seed", 0), own.get("columns", {})]) for own in settings}
    if len(drawn) > 1:
        raise ValueError(
            f"The folders hold different test rows, [number, seed, columns] of {' and '.join(sorted(drawn))}."
        )
    tasks = [load_task(name, *json.loads(next(iter(drawn)))) for name in names]
    for task in tasks:
        _check_measured(task, [record for record in records if record.task == task.name and record.error is None])
    return {task.name: task for task in tasks}


def _check_measured(task: Task, records: Sequence[Record]) -> None:
    """Check that a task has the test rows of its records, as far as these show them."""
    if not records:
        raise ValueError(f"The results have no runs of the task {task.name}; name a task that was measured.")
    for record in records:
        counted = Counter[int]()
        for label, _, count in record.confusion or ():
            counted[label] += count
        wrong = [(int(row), prediction) for row, prediction, _ in record.wrong or ()]
        if (
            (record.num_classes, record.test_rows) != (task.num_classes, len(task.test_texts))
            or record.label_names not in (None, list(task.label_names))
            or (record.confusion is not None and counted != Counter(task.test_labels))
            or any(not 0 <= row < record.test_rows or task.test_labels[row] == guess for row, guess in wrong)
        ):
            raise ValueError(
                f"The test rows of {task.name} are not those of {record.method} at k={record.k}, seed {record.seed}: "
                "the task has changed since. Measure it again, or leave its texts out."
            )
