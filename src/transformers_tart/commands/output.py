"""The output file of `classify` and its fingerprint, in a file beside it.

The output is jsonl or csv, appended by one process, and whole but for the last row after a kill. Only a run with the
same fingerprint, which means the same inputs and model, continues it.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from transformers import PreTrainedConfig

from transformers_tart import __version__
from transformers_tart.backbones.dtype import with_dtype
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.checks.arguments import well_formed
from transformers_tart.commands.classes import FILES, VALUES
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.files import explain_full_disk, locked, write_all
from transformers_tart.inputs.tables import file_format


OutputRow: TypeAlias = dict[str, Any]

FINGERPRINT_FORMAT = 1
# Those that change predictions; batch sizes and devices do not.
OPTIONS = ("views", "protocol", "template", "prompt", "dtype", *VALUES)
NAMES = {
    "version": "version of transformers-tart",
    "options": f"choice of --{', --'.join(name.replace('_', '-') for name in OPTIONS)}",
}
REMEDY = "give another file, or pass --overwrite to start it anew."

FIELDS = ("row", "label", "score", "error")
HEADER = (",".join(FIELDS) + "\r\n").encode()
SYNC_SECONDS = 5.0  # between two calls of fsync, which bounds the work that a power failure costs


class Finished(NamedTuple):
    """The finished part of an output file."""

    rows: int = 0  # complete ones
    bad: int = 0  # complete rows without a label
    size: int = 0  # bytes up to the end of the last complete row


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
            if is_csv(output) and (header := file.readline()).endswith(b"\n"):
                size = len(header)
                if header != HEADER:
                    raise ValueError(f"the header is not {HEADER.decode().strip()}")
            for content, row in _read_csv(file) if is_csv(output) else _read_jsonl(file):
                if row["row"] != rows:
                    raise ValueError(f"row {rows} is missing")
                rows, bad, size = rows + 1, bad + (row["label"] is None), size + len(content)
        except (ValueError, KeyError, TypeError, csv.Error) as err:
            reason = f"after {rows} rows, {err}; {REMEDY}"
            raise ValueError(f"{output} is not an interrupted output of this command: {reason}") from err
    return Finished(rows, bad, size)


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
            raise ValueError(f"Another process is writing to {output}; wait for it, or give another file.") from err
        yield


@contextlib.contextmanager
def open_output(output: Path | None) -> Iterator[Callable[[Sequence[OutputRow]], None]]:
    """Yield a function that appends rows to a file, or writes them to stdout, without buffering."""
    if output is None:
        yield _print_rows
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


def _print_rows(rows: Sequence[OutputRow]) -> None:
    sys.stdout.buffer.write(_to_jsonl(rows))
    sys.stdout.buffer.flush()


def _to_jsonl(rows: Sequence[OutputRow]) -> bytes:
    return "".join(well_formed(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows).encode()


def _to_csv(rows: Sequence[OutputRow]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, FIELDS).writerows(rows)
    return well_formed(text.getvalue()).encode()


def fingerprint_of(args: argparse.Namespace, config: PreTrainedConfig, modality: str) -> dict[str, Any]:
    """Return digests of everything that predictions depend on.

    Of images and audio given by paths, it covers the paths and their folder, but not the contents of the files.
    """
    loading = with_dtype({"dtype": args.dtype, "device_map": args.device_map}, config, args.device)
    options = {**vars(args), "dtype": str(loading["dtype"]).removeprefix("torch.")}
    return {
        "format": FINGERPRINT_FORMAT,
        "version": __version__,
        "input": _digest_table(args.input, modality),
        **{name: path and _digest_table(path, modality) for name in ("examples", *FILES) for path in [options[name]]},
        "model": _describe_model(args.model, args.revision, config),
        "options": {name: options[name] for name in OPTIONS},
    }


def _digest_table(path: str, modality: str) -> str:
    facts = [file_format(path)] if modality == "text" else [file_format(path), str(Path(path).parent.resolve())]
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha256(json.dumps(facts).encode())).hexdigest()


def _describe_model(name: str, revision: str | None, config: PreTrainedConfig) -> dict[str, Any]:
    """Return name and version of a model and of its backbone; of folders, names, sizes and times of the files."""
    reference = BackboneReference.of(name, revision)
    commit = getattr(config, "_commit_hash", None)
    facts: dict[str, Any] = {"name": reference.name, "revision": commit or reference.revision}
    if reference.is_local:
        folder = Path(str(reference.name))
        stats = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
        files = [(path.relative_to(folder).as_posix(), s.st_size, s.st_mtime_ns) for path, s in stats.items()]
        facts = {"files": hashlib.sha256(json.dumps(files).encode()).hexdigest()}
    if isinstance(config, TartBaseConfig) and config.base_model_name_or_path and not config.include_backbone:
        base, backbone_config = config.base_model_name_or_path, config.base_model_config
        if backbone_config is not None:
            facts["backbone"] = _describe_model(base, config.base_model_revision, backbone_config)
    return facts


def fingerprint_file(output: Path) -> Path:
    """Return the path of an output file's fingerprint."""
    return output.with_name(f"{output.name}.fingerprint.json")


def check_fingerprint(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Check that an output file is empty or has the same fingerprint; the error names the differences."""
    if not output.exists() or output.stat().st_size == 0:
        return
    file = fingerprint_file(output)
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ValueError(f"{output} is not empty and has no {file.name} beside it; {REMEDY}") from err
    except ValueError as err:
        raise ValueError(f"{file} is damaged; {REMEDY}") from err
    kept = kept if isinstance(kept, dict) else {}
    if differing := [NAMES.get(name, name) for name, value in fingerprint.items() if kept.get(name) != value]:
        raise ValueError(f"{output} was made with another {' and another '.join(differing)}; {REMEDY}")
