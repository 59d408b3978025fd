"""The output file of `classify` and its fingerprint, in a file beside it.

The output is jsonl or csv, appended by one process, and whole but for the last row after a kill. Only a run with the
same fingerprint, which means the same inputs and model, continues it. A parquet file is written whole in the end, from
a jsonl file beside it that is continued in the same way.
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
from transformers_tart.answers.limits import OPTIONS as LIMITS
from transformers_tart.backbones.dtype import with_dtype
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.checks.arguments import well_formed
from transformers_tart.commands.classes import FILES, VALUES
from transformers_tart.commands.inputs import COLUMN_OPTIONS, InputTable
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.files import explain_full_disk, write_all
from transformers_tart.inputs.tables import file_format


OutputRow: TypeAlias = dict[str, Any]

FINGERPRINT_FORMAT = 1
# Those that change predictions; batch sizes and devices do not.
OPTIONS = (
    *("views", "protocol", "template", "prompt", "dtype", *VALUES, *COLUMN_OPTIONS),
    *("keep_columns", "top_k", *LIMITS),
)
REMEDY = "give another file, or pass --overwrite to start it anew."

FIELDS = ("row", "label", "score", "error")
LISTS = ("labels", "scores")  # of the best classes, with --top-k, or of a label set
SCOPE = "out_of_scope"
FORMATS = (".jsonl", ".csv", ".parquet")
SYNC_SECONDS = 5.0  # between two calls of fsync, which bounds the work that a power failure costs


class Finished(NamedTuple):
    """The finished part of an output file."""

    rows: int = 0  # complete ones
    bad: int = 0  # complete rows without a score, which were unreadable
    size: int = 0  # bytes up to the end of the last complete row


class Output(NamedTuple):
    """An output file, or stdout without a path."""

    path: Path | None
    fields: tuple[str, ...] = FIELDS  # columns of a csv or parquet file

    @property
    def work(self) -> Path:
        """The file that rows are appended to: for parquet, one beside it."""
        if self.path is None:
            raise ValueError("Rows for stdout are in no file.")
        return self.path.with_name(f"{self.path.name}.part.jsonl") if self.is_parquet else self.path

    @property
    def is_csv(self) -> bool:
        """True for a file of csv."""
        return self.path is not None and self.path.suffix == ".csv"

    @property
    def is_parquet(self) -> bool:
        """True for a file that is parquet in the end."""
        return self.path is not None and self.path.suffix == ".parquet"

    @property
    def is_begun(self) -> bool:
        """True where there are rows, finished or not."""
        paths = () if self.path is None else {self.path, self.work}
        return any(path.exists() and path.stat().st_size > 0 for path in paths)

    @property
    def header(self) -> bytes:
        """The first line of a csv file."""
        return _to_csv([dict(zip(self.fields, self.fields, strict=True))], self.fields)

    def read_finished(self) -> Finished:
        """Read the finished part of an output file: all rows but a torn last one."""
        if self.is_parquet and self.path is not None and self.path.exists():
            from pyarrow.parquet import read_table

            scores = read_table(self.path, columns=["score"])["score"]
            return Finished(len(scores), scores.null_count)
        if not self.work.exists():
            return Finished()
        rows, bad, size = 0, 0, 0
        with open(self.work, "rb") as file:
            try:
                if self.is_csv and (header := file.readline()).endswith(b"\n"):
                    size = len(header)
                    if header != self.header:
                        raise ValueError(f"the header is not {self.header.decode().strip()}")
                for content, row in _read_csv(file, self.fields) if self.is_csv else _read_jsonl(file):
                    if row["row"] != rows:
                        raise ValueError(f"row {rows} is missing")
                    rows, bad, size = rows + 1, bad + (row["score"] is None), size + len(content)
            except (ValueError, KeyError, TypeError, csv.Error) as err:
                reason = f"after {rows} rows, {err}; {REMEDY}"
                raise ValueError(f"{self.work} is not an interrupted output of this command: {reason}") from err
        return Finished(rows, bad, size)

    def cut_torn_row(self, finished: Finished) -> None:
        """Truncate a torn last row, in place."""
        if self.work.exists() and self.work.stat().st_size > finished.size:
            os.truncate(self.work, finished.size)

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[Sequence[OutputRow]], None]]:
        """Yield a function that appends rows to a file, or writes them to stdout, without buffering."""
        if self.path is None:
            yield _print_rows
            return
        path = self.work
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        synced = time.monotonic()

        def append(rows: Sequence[OutputRow]) -> None:
            nonlocal synced
            with explain_full_disk(path):
                write_all(file, _to_csv(rows, self.fields) if self.is_csv else _to_jsonl(rows))
                if time.monotonic() - synced > SYNC_SECONDS:
                    os.fsync(file)
                    synced = time.monotonic()

        try:
            if self.is_csv and os.fstat(file).st_size == 0:
                with explain_full_disk(path):
                    write_all(file, self.header)
            yield append
            os.fsync(file)
        finally:
            os.close(file)

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Check that an output file is empty or has the same fingerprint; the error names the differences."""
        if self.path is None or not self.is_begun:
            return
        path, file = self.path, fingerprint_file(self.path)
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as err:
            raise ValueError(f"{path} is not empty and has no {file.name} beside it; {REMEDY}") from err
        except ValueError as err:
            raise ValueError(f"{file} is damaged; {REMEDY}") from err
        kept = kept if isinstance(kept, dict) else {}
        pairs = {name: (kept.get(name), value) for name, value in fingerprint.items()}
        if differing := [_describe_change(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]:
            raise ValueError(f"{path} was made with another {' and another '.join(differing)}; {REMEDY}")


def _describe_change(name: str, kept: Any, given: Any) -> str:
    """Return the name of a part of a fingerprint, with those of the options that differ."""
    if name == "version":
        return "version of transformers-tart"
    if name == "options":
        before = kept if isinstance(kept, dict) else {}
        changed = [f"--{option.replace('_', '-')}" for option in given if before.get(option) != given[option]]
        return f"choice of {', '.join(changed or ['options'])}"
    return name


def _read_jsonl(file: BinaryIO) -> Iterator[tuple[bytes, OutputRow]]:
    for line in file:
        if line.endswith(b"\n"):
            yield line, json.loads(line)


def _read_csv(file: BinaryIO, fields: Sequence[str]) -> Iterator[tuple[bytes, OutputRow]]:
    """Join the lines of each row: before a line end inside of a row, the number of quotes is odd."""
    content, quotes = bytearray(), 0
    for line in file:
        content += line
        quotes += line.count(b'"')
        if line.endswith(b"\r\n") and quotes % 2 == 0:
            (cells,) = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
            row = dict(zip(fields, cells, strict=True))
            yield bytes(content), {"row": int(row["row"]), "score": row["score"] or None}
            content, quotes = bytearray(), 0


def _print_rows(rows: Sequence[OutputRow]) -> None:
    sys.stdout.buffer.write(_to_jsonl(rows))
    sys.stdout.buffer.flush()


def _to_jsonl(rows: Sequence[OutputRow]) -> bytes:
    return "".join(well_formed(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows).encode()


def _to_csv(rows: Sequence[OutputRow], fields: Sequence[str]) -> bytes:
    """Return lines of csv; lists and objects are JSON in their cells."""
    text = io.StringIO(newline="")
    cells = ({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()} for row in rows)
    csv.DictWriter(text, fields).writerows(cells)
    return well_formed(text.getvalue()).encode()


def fingerprint_of(args: argparse.Namespace, config: PreTrainedConfig, table: InputTable) -> dict[str, Any]:
    """Return digests of everything that predictions depend on.

    Of images and audio given by paths, it covers the paths and their folder, but not the contents of the files.
    """
    loading = with_dtype({"dtype": args.dtype, "device_map": args.device_map}, config, args.device)
    options = {**vars(args), "dtype": str(loading["dtype"]).removeprefix("torch.")}
    others = {name: options[name] for name in ("examples", *FILES)}
    return {
        "format": FINGERPRINT_FORMAT,
        "version": __version__,
        "input": _digest_table(table.path, table, table.folder),
        **{name: path and _digest_table(path, table, Path(path).parent) for name, path in others.items()},
        "model": _describe_model(args.model, args.revision, config),
        "options": {name: options[name] for name in OPTIONS},
    }


def _digest_table(path: str, table: InputTable, folder: Path) -> str:
    facts = [file_format(path), *([str(folder.resolve())] if table.modality.suffixes else [])]
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
