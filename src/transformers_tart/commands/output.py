"""The output file of `classify`, jsonl or csv: appended by one process, whole but for the last row after a kill."""

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from transformers_tart.checks.arguments import well_formed
from transformers_tart.files import explain_full_disk, locked, write_all


OutputRow: TypeAlias = dict[str, Any]

FIELDS = ("row", "label", "score", "error")
HEADER = (",".join(FIELDS) + "\r\n").encode()
SYNC_SECONDS = 5.0  # between two calls of fsync, which bounds the work that a power failure costs


class Finished(NamedTuple):
    """The finished part of an output file.

    Attributes:
        rows: complete rows.
        bad: complete rows without a label.
        size: bytes up to the end of the last complete row.
    """

    rows: int = 0
    bad: int = 0
    size: int = 0


def is_csv(output: Path) -> bool:
    """Return whether an output file is csv, and not jsonl, by its ending."""
    if output.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"{output} has the ending {output.suffix!r}; it must be .jsonl or .csv.")
    return output.suffix == ".csv"


def read_finished(output: Path) -> Finished:
    """Read the finished part of an output file: all rows but a torn last one."""
    if not output.exists():
        return Finished()
    rows, bad, size = 0, 0, 0
    with open(output, "rb") as file:
        try:
            if is_csv(output):
                size = _skip_header(file)
            for content, row in _read_csv(file) if is_csv(output) else _read_jsonl(file):
                if row["row"] != rows:
                    raise ValueError(f"row {rows} is missing")
                rows, bad, size = rows + 1, bad + (row["label"] is None), size + len(content)
        except (ValueError, KeyError, TypeError, csv.Error) as err:
            raise ValueError(
                f"{output} is not an interrupted output of this command: after {rows} rows, {err}; give another file, "
                "or pass --overwrite to start it anew."
            ) from err
    return Finished(rows, bad, size)


def _skip_header(file: BinaryIO) -> int:
    header = file.readline()
    if header.endswith(b"\n") and header != HEADER:
        raise ValueError(f"the header is not {HEADER.decode().strip()}")
    return len(header) if header == HEADER else 0


def _read_jsonl(file: BinaryIO) -> Iterator[tuple[bytes, OutputRow]]:
    for line in file:
        if line.endswith(b"\n"):
            yield line, json.loads(line)


def _read_csv(file: BinaryIO) -> Iterator[tuple[bytes, OutputRow]]:
    """Join the lines of each row: before a line end inside of a row, the number of quotes is odd."""
    content, quotes = bytearray(), 0
    for line in file:
        content += line
        quotes += line.count(b'"')
        if line.endswith(b"\r\n") and quotes % 2 == 0:
            (cells,) = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
            row, label, score, _ = cells
            yield bytes(content), {"row": int(row), "label": label if score else None}
            content, quotes = bytearray(), 0


def cut_torn_row(output: Path, finished: Finished) -> None:
    """Truncate a torn last row, in place."""
    if output.exists() and output.stat().st_size > finished.size:
        os.truncate(output, finished.size)


@contextlib.contextmanager
def lock_output(output: Path) -> Iterator[None]:
    """Lock an output file, which is made when it does not exist, or refuse it when another process writes to it."""
    output.touch()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(output, wait=False))
        except BlockingIOError as err:
            raise ValueError(
                f"Another process is writing to {output}; wait until it has ended, or give another file."
            ) from err
        yield


@contextlib.contextmanager
def open_output(output: Path | None) -> Iterator[Callable[[Sequence[OutputRow]], None]]:
    """Yield a function that appends rows to a file, or writes them to stdout, without buffering."""
    if output is None:
        yield _write_to_stdout
        return
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    synced = time.monotonic()

    def append(rows: Sequence[OutputRow]) -> None:
        nonlocal synced
        with explain_full_disk(output):
            write_all(file, _to_csv(rows) if is_csv(output) else _to_jsonl(rows))
            if time.monotonic() - synced > SYNC_SECONDS:
                os.fsync(file)
                synced = time.monotonic()

    try:
        if is_csv(output) and os.fstat(file).st_size == 0:
            with explain_full_disk(output):
                write_all(file, HEADER)
        yield append
        os.fsync(file)
    finally:
        os.close(file)


def _write_to_stdout(rows: Sequence[OutputRow]) -> None:
    sys.stdout.buffer.write(_to_jsonl(rows))
    sys.stdout.buffer.flush()


def _to_jsonl(rows: Sequence[OutputRow]) -> bytes:
    return "".join(well_formed(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows).encode()


def _to_csv(rows: Sequence[OutputRow]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, FIELDS).writerows(rows)
    return well_formed(text.getvalue()).encode()


__all__ = ["Finished", "OutputRow", "cut_torn_row", "is_csv", "lock_output", "open_output", "read_finished"]
