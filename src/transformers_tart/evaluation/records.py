"""Files of results: a JSON line for each finished run, readable after a kill."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin

from transformers_tart.evaluation.metrics import CALIBRATION_BINS
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
