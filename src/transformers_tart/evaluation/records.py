"""The file of results: a JSON line for each finished cell, which a killed run leaves readable."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from transformers_tart.files import explain_full_disk, write_all


Key: TypeAlias = tuple[str, int, int, str]

CALIBRATION_BINS = 10
PATTERNS = ("results.jsonl", "results.*.jsonl")  # of one process, and of several


@dataclass(frozen=True)
class Record:
    r"""
    One cell: a method on a support set of a task.

    Args:
        task (`str`):
            Name of the data set.
        num_classes (`int`):
            Its number of classes.
        k (`int`):
            Size of the support set.
        seed (`int`):
            With which it was drawn.
        method (`str`):
            What was measured.
        model (`str`):
            The backbone.
        metrics (`dict[str, float]`):
            Values by name, fractions and not percentages; empty for a cell that failed.
        calibration (`list[list[float]]`):
            For each of 10 bins of equal width of the largest probability: how many rows fall into it, the sum of
            their largest probabilities, and how many of them are right. Empty where a method gives no probabilities.
        seconds (`float`):
            To embed, fit and predict, also where embeddings were shared with another method.
        memory_mb (`float`):
            The largest memory in use.
        device (`str`):
            Where it ran.
        test_rows (`int`):
            Number of queries.
        error (`str`, *optional*):
            Why the cell failed.
    """

    task: str
    num_classes: int
    k: int
    seed: int
    method: str
    model: str
    metrics: dict[str, float]
    calibration: list[list[float]]
    seconds: float
    memory_mb: float
    device: str
    test_rows: int
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.error is None) != bool(self.metrics):
            raise ValueError("A record has metrics, or an error in place of them.")
        odd = {name: value for name, value in self.metrics.items() if not math.isfinite(value)}
        if odd:
            raise ValueError(f"The metrics of a record must be finite, not {odd}; such a cell has an error instead.")
        if self.calibration and [len(row) for row in self.calibration] != [3] * CALIBRATION_BINS:
            raise ValueError(f"The calibration of a record must be {CALIBRATION_BINS} bins of 3 numbers.")

    @property
    def key(self) -> Key:
        """What distinguishes the cell from the others: task, k, seed and method."""
        return self.task, self.k, self.seed, self.method


_KINDS: dict[Any, type | tuple[type, ...]] = {
    str: str,
    int: int,
    float: (int, float),
    dict[str, float]: dict,
    list[list[float]]: list,
    str | None: (str, type(None)),
}


def _parse(line: bytes) -> Record:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    names = {field.name for field in fields(Record)}
    required = {field.name for field in fields(Record) if field.default is MISSING}
    if unknown := sorted(values.keys() - names):
        raise ValueError(f"it has the unknown fields {unknown}")
    if missing := sorted(required - values.keys()):
        raise ValueError(f"it lacks the fields {missing}")
    for field in fields(Record):
        if field.name in values and not isinstance(values[field.name], _KINDS[field.type]):
            raise ValueError(f"its field {field.name} is {values[field.name]!r}")
    try:
        return Record(**values)
    except TypeError as err:  # of what lies inside the metrics or the calibration
        raise ValueError(f"its numbers are none: {err}") from err


def calibration_bins(probabilities: Tensor, labels: Tensor) -> list[list[float]]:
    """What a [`Record`] holds of the calibration of probabilities (n, classes); a bin includes its right edge."""
    confidence, guess = probabilities.detach().cpu().double().max(1)
    right = (guess == labels.cpu()).double()
    bin_of = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    columns = torch.stack([torch.ones_like(confidence), confidence, right], dim=1)
    return torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64).index_add_(0, bin_of, columns).tolist()


def append_record(path: str | os.PathLike, record: Record) -> None:
    r"""
    Add a line to a file, which is on the disk when this returns.

    What a killed run left of a last line is cut off first, so a file must have a single writer: several processes
    write `results.0.jsonl`, `results.1.jsonl` and so on.

    Args:
        path (`str` or `os.PathLike`):
            The file; it is made when there is none.
        record ([`Record`]):
            The cell.

    Raises:
        OSError: When the disk is full or the file cannot be written; what it held before stays.
    """
    line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with explain_full_disk(path):
            _cut_half_line(file)
            write_all(file, line)
            os.fsync(file)
    finally:
        os.close(file)


def _cut_half_line(file: int) -> None:
    end = os.lseek(file, 0, os.SEEK_END)
    if end == 0:
        return
    os.lseek(file, end - 1, os.SEEK_SET)
    if os.read(file, 1) == b"\n":
        return
    os.lseek(file, 0, os.SEEK_SET)
    content = b""
    while len(content) < end and (block := os.read(file, end - len(content))):
        content += block
    os.ftruncate(file, content.rfind(b"\n") + 1)


def _read_file(path: Path) -> Iterator[Record]:
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, start=1):
        if line.strip():
            try:
                yield _parse(line)
            except ValueError as err:
                raise ValueError(f"Line {number} of {path} is no record: {err}.") from err


def read_records(folder: str | os.PathLike) -> list[Record]:
    r"""
    All cells of `results.jsonl` and `results.*.jsonl`, each once, in the order of their first appearance.

    A last line without its end, which a killed run leaves, is not read. Of several records of a cell in one file the
    last counts; of several files, one that succeeded.

    Args:
        folder (`str` or `os.PathLike`):
            Where the files are; without any there are no cells.

    Raises:
        ValueError: When a line is no record; the message names file and line.
    """
    paths = sorted({path for pattern in PATTERNS for path in Path(folder).glob(pattern)})
    found: dict[Key, Record] = {}
    for path in paths:
        for key, record in {record.key: record for record in _read_file(path)}.items():
            if key not in found or record.error is None or found[key].error is not None:
                found[key] = record
    return list(found.values())


def finished_keys(folder: str | os.PathLike) -> set[Key]:
    """The cells of a folder that need not be measured again: those without an error."""
    return {record.key for record in read_records(folder) if record.error is None}


__all__ = ["CALIBRATION_BINS", "Key", "Record", "append_record", "calibration_bins", "finished_keys", "read_records"]
