"""Files of results, a JSON line for each finished run, readable after a kill, and folders that a report compares."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin

from transformers_tart.evaluation.metrics import CALIBRATION_BINS
from transformers_tart.evaluation.tasks.loading import load_task
from transformers_tart.evaluation.tasks.task import Task
from transformers_tart.files import explain_full_disk, write_all


Key: TypeAlias = tuple[str, int, int, str]

NUMBERS_OF_BINS = (CALIBRATION_BINS, 10)  # the latter in files of version 0.1
SETTINGS_FILE = "settings.json"  # beside the results
PATTERNS = ("results.jsonl", "results.*.jsonl")  # of one process, and of several


@dataclass(frozen=True)
class Record:
    """A run: a method on a support set of a task."""

    task: str
    num_classes: int
    k: int  # size of the support set
    seed: int
    method: str
    model: str
    metrics: dict[str, float]  # fractions and not percentages; empty for a run that failed
    calibration: list[list[float]]  # as [`calibration_bins`] returns them; empty for a run that failed
    seconds: float  # to embed, fit and predict, also where embeddings were shared with another method
    memory_mb: float  # peak of the memory in use
    device: str
    test_rows: int
    error: str | None = None  # fields with a default are missing in files of some versions
    views: list[str] | None = None  # of the composed model; `None` without one, and in files of version 0.1
    cpu_seconds: float | None = None  # of this process in `seconds`; `None` in files of former versions
    per_class: int | None = None  # examples of each class that were asked for, where it was not k
    label_names: list[str] | None = None  # of the classes; these three are `None` in files of former versions
    confusion: list[list[int]] | None = None  # label, prediction and number of rows
    wrong: list[list[float]] | None = None  # row, prediction and its probability of the surest wrong predictions
    shared_seconds: float | None = None  # part of `seconds` that other methods had spent on shared embeddings
    digest: str | None = None  # of the rows of the task

    def __post_init__(self) -> None:
        if (self.error is None) != bool(self.metrics):
            raise ValueError("A record has metrics, or an error in place of them.")
        odd = {name: value for name, value in self.metrics.items() if not math.isfinite(value)}
        if odd:
            raise ValueError(f"The metrics of a record must be finite, not {odd}; such a run has an error instead.")
        widths = {len(row) for row in self.calibration}
        if widths and (widths != {3} or len(self.calibration) not in NUMBERS_OF_BINS):
            raise ValueError(f"The calibration of a record must be {CALIBRATION_BINS} bins of 3 numbers.")
        if any(len(row) != 3 for row in (*(self.confusion or ()), *(self.wrong or ()))):
            raise ValueError("Each row of the confusion and of the wrong predictions of a record must have 3 numbers.")

    @property
    def key(self) -> Key:
        """The parts that tell runs apart: task, k, seed and method."""
        return self.task, self.k, self.seed, self.method


def _kinds_of(annotation: Any) -> tuple[type, ...]:
    """Return the classes of the JSON values of a field."""
    parts = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    kinds = {get_origin(part) or part for part in parts}
    return (*kinds, int) if float in kinds else (*kinds,)


def _parse(line: bytes) -> Record:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    kinds = {field.name: _kinds_of(field.type) for field in fields(Record)}
    if unknown := sorted(values.keys() - kinds.keys()):
        raise ValueError(f"it has the unknown fields {unknown}")
    if missing := sorted(
        field.name for field in fields(Record) if field.default is MISSING and field.name not in values
    ):
        raise ValueError(f"it lacks the fields {missing}")
    for name, value in values.items():
        if not isinstance(value, kinds[name]):
            raise ValueError(f"its field {name} is {value!r}")
    try:
        return Record(**values)
    except TypeError as err:  # of what lies inside the metrics or the calibration
        raise ValueError(f"its metrics are not numeric: {err}") from err


def append_record(path: str | os.PathLike, record: Record) -> None:
    """Add a line to a file, made if it does not exist, and bring it to the disk; former lines stay if that fails.

    A torn last line, left by a kill, is cut off first, so a file must have a single writer: several processes write
    `results.0.jsonl`, `results.1.jsonl` and so on.
    """
    line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with explain_full_disk(path):
            _cut_torn_line(path)
            write_all(file, line)
            os.fsync(file)
    finally:
        os.close(file)


def _cut_torn_line(path: str | os.PathLike) -> None:
    with open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _read_file(path: Path) -> Iterator[Record]:
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, start=1):
        if line.strip():
            try:
                yield _parse(line)
            except ValueError as err:
                raise ValueError(f"Line {number} of {path} is no record: {err}.") from err


def find_files(folder: str | os.PathLike) -> list[Path]:
    """Return the files of results of a folder."""
    return sorted({path for pattern in PATTERNS for path in Path(folder).glob(pattern)})


def read_records(folder: str | os.PathLike) -> list[Record]:
    """Read the runs of `results.jsonl` and `results.*.jsonl`, each once, in the order of their first appearance.

    A torn last line is not read. Of several records of a run in one file the last counts; of several files, one that
    succeeded. Without a folder or files there are none.
    """
    found: dict[Key, Record] = {}
    for path in find_files(folder):
        for key, record in {record.key: record for record in _read_file(path)}.items():
            if key not in found or record.error is None or found[key].error is not None:
                found[key] = record
    return list(found.values())


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
