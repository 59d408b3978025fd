"""The file of results: whole lines, resumed runs, several processes."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.results import DONE

from transformers_tart.evaluation.metrics import CALIBRATION_BINS
from transformers_tart.evaluation.records import Record, append_record, read_records


FAILED = replace(DONE, metrics={}, calibration=[], error="ValueError: ü\nno memory")


def write(path: Path, *records: Record) -> Path:
    for record in records:
        append_record(path, record)
    return path


def test__append__records__read_back_the_same(tmp_path: Path) -> None:
    records = [DONE, replace(FAILED, seed=1), replace(DONE, task="ü | \n", metrics={"log_loss": 1 / 3})]
    path = write(tmp_path / "results.jsonl", *records)
    assert read_records(tmp_path) == records
    assert len(path.read_bytes().splitlines()) == 3
    assert path.read_bytes().endswith(b"\n")


def test__read__no_folder__no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "nowhere") == read_records(tmp_path) == []
    assert DONE.key == ("sms", 16, 0, "tart")


def test__read__file_of_version_0_1__its_records() -> None:
    failed, measured = sorted(read_records(Path(__file__).parent / "results_0.1"), key=lambda record: record.method)
    assert (measured.key, measured.model, measured.test_rows) == (("made", 6, 42, "tart"), "llama", 30)
    assert measured.metrics["calibration_error"] == pytest.approx(0.1174862, abs=1e-6)
    assert len(measured.calibration) == 10 < CALIBRATION_BINS == 15
    assert (
        failed.error == "ValueError: llama is no causal language model with a vocabulary head: it cannot be prompted."
    )


def test__read__repeated_cell__the_latest_counts(tmp_path: Path) -> None:
    write(tmp_path / "results.jsonl", FAILED, replace(DONE, seed=1), DONE)
    assert read_records(tmp_path) == [DONE, replace(DONE, seed=1)]


@pytest.mark.parametrize("order", [(FAILED, DONE), (DONE, FAILED)])
def test__read__files_of_several_processes__what_succeeded_in_any(tmp_path: Path, order: tuple[Record, ...]) -> None:
    for i, record in enumerate(order):
        write(tmp_path / f"results.{i}.jsonl", record, replace(DONE, seed=i + 5))
    write(tmp_path / "results.jsonl", replace(DONE, k=4))
    write(tmp_path / "other.jsonl", replace(DONE, k=5))
    found = read_records(tmp_path)
    assert DONE in found
    assert FAILED not in found
    assert sorted((record.k, record.seed) for record in found) == [(4, 0), (16, 0), (16, 5), (16, 6)]


def test__read__file_cut_anywhere__whole_lines_and_a_clean_continuation(tmp_path: Path) -> None:
    path = write(tmp_path / "results.jsonl", DONE, replace(DONE, seed=1))
    content = path.read_bytes()
    end_of_first = content.index(b"\n") + 1
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        whole = [DONE] if cut >= end_of_first else []
        assert read_records(tmp_path) == whole
        append_record(path, replace(DONE, seed=2))
        assert read_records(tmp_path) == [*whole, replace(DONE, seed=2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: "not json", "Expecting value"),
        (lambda values: "[]", "no JSON object"),
        (lambda values: json.dumps({**values, "color": 1}), r"unknown fields \['color'\]"),
        (lambda values: json.dumps({k: v for k, v in values.items() if k != "seed"}), r"lacks the fields \['seed'\]"),
        (lambda values: json.dumps({**values, "k": "16"}), "field k is '16'"),
        (lambda values: json.dumps({**values, "metrics": {"accuracy": "high"}}), "numeric"),
        (lambda values: json.dumps({**values, "calibration": [1]}), "numeric"),
        (lambda values: json.dumps({**values, "calibration": [[1, 2]]}), "15 bins of 3"),
        (lambda values: json.dumps({**values, "metrics": {"accuracy": float("nan")}}), "finite"),
        (lambda values: json.dumps({**values, "error": "failed"}), "in place of them"),
        (lambda values: "\udcff", "utf-8"),
    ],
)
def test__read__line_that_is_no_record__file_and_line_named(
    tmp_path: Path, change: Callable[[dict], str], message: str
) -> None:
    path = write(tmp_path / "results.3.jsonl", DONE)
    line = change(json.loads(path.read_text())).encode(errors="surrogateescape")
    path.write_bytes(path.read_bytes() + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=message) as stop:
        read_records(tmp_path)
    assert str(stop.value).startswith(f"Line 3 of {path} is no record: ")


@pytest.mark.parametrize("wrong", [{"metrics": {}}, {"error": "x"}, {"metrics": {"log_loss": float("inf")}}])
def test__record__neither_measured_nor_failed__refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"error"):
        replace(DONE, **wrong)


def test__append__full_disk__said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "results.jsonl", DONE)
    real_write, calls = os.write, []

    def write_in_part(file: int, line: bytes) -> int:
        calls.append(line)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(file, line[:10])

    with monkeypatch.context() as patch:
        patch.setattr("os.write", write_in_part)
        with pytest.raises(OSError, match="No space left on device: .*results.jsonl"):
            append_record(path, replace(DONE, seed=1))
    assert read_records(tmp_path) == [DONE]
