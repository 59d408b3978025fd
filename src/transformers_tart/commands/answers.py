"""The output of `classify`: rows in jsonl or csv that a killed run leaves whole but for the last, which is cut off."""

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
from transformers_tart.files import explain_full_disk, write_all


Answer: TypeAlias = dict[str, Any]

FIELDS = ("row", "label", "score", "error")
HEADER = (",".join(FIELDS) + "\r\n").encode()
SYNC_SECONDS = 5.0  # a power failure costs no more work than that of so many seconds


class Finished(NamedTuple):
    """What an output file holds already.

    Attributes:
        rows: complete rows.
        bad: those of them without a label.
        size: bytes up to the end of the last complete row.
    """

    rows: int = 0
    bad: int = 0
    size: int = 0


def is_csv(output: Path) -> bool:
    """Return whether an output file is csv, and not jsonl.

    Raises:
        ValueError: When it has another ending.
    """
    if output.suffix not in (".jsonl", ".csv"):
        raise ValueError(f"{output} has the ending {output.suffix!r}; it must be .jsonl or .csv.")
    return output.suffix == ".csv"


def read_finished(output: Path) -> Finished:
    """Read how far an output file is finished, a row at a time; a last row that was written in part is left out.

    Raises:
        ValueError: When it is no output of this command.
    """
    if not output.exists():
        return Finished()
    rows, bad, size = 0, 0, 0
    with open(output, "rb") as file:
        try:
            if is_csv(output):
                size = _skip_header(file)
            for content, answer in _read_csv(file) if is_csv(output) else _read_jsonl(file):
                if answer["row"] != rows:
                    raise ValueError(f"row {rows} is missing")
                rows, bad, size = rows + 1, bad + (answer["label"] is None), size + len(content)
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


def _read_jsonl(file: BinaryIO) -> Iterator[tuple[bytes, Answer]]:
    for line in file:
        if line.endswith(b"\n"):
            yield line, json.loads(line)


def _read_csv(file: BinaryIO) -> Iterator[tuple[bytes, Answer]]:
    """Join the lines of each row: a line end among them has an odd number of quotes before it."""
    content, quotes = [], 0
    for line in file:
        content.append(line)
        quotes += line.count(b'"')
        if line.endswith(b"\r\n") and quotes % 2 == 0:
            whole = b"".join(content)
            (cells,) = csv.reader(io.StringIO(whole.decode(), newline=""), strict=True)
            row, label, score, _ = cells
            yield whole, {"row": int(row), "label": label if score else None}
            content, quotes = [], 0


def cut_torn_row(output: Path, finished: Finished) -> None:
    """Cut off what a killed run has left of a last row; the finished rows are not written again."""
    if output.exists() and output.stat().st_size > finished.size:
        os.truncate(output, finished.size)


@contextlib.contextmanager
def open_output(output: Path | None) -> Iterator[Callable[[Sequence[Answer]], None]]:
    """Yield a function that appends rows to a file, or to stdout, and has handed them over when it returns."""
    if output is None:
        yield _write_to_stdout
        return
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    synced = time.monotonic()

    def append(answers: Sequence[Answer]) -> None:
        nonlocal synced
        with explain_full_disk(output):
            write_all(file, _to_csv(answers) if is_csv(output) else _to_jsonl(answers))
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


def _write_to_stdout(answers: Sequence[Answer]) -> None:
    sys.stdout.buffer.write(_to_jsonl(answers))
    sys.stdout.buffer.flush()


def _to_jsonl(answers: Sequence[Answer]) -> bytes:
    return "".join(well_formed(json.dumps(answer, ensure_ascii=False)) + "\n" for answer in answers).encode()


def _to_csv(answers: Sequence[Answer]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, FIELDS).writerows(answers)
    return well_formed(text.getvalue()).encode()


__all__ = ["Answer", "Finished", "cut_torn_row", "is_csv", "open_output", "read_finished"]
