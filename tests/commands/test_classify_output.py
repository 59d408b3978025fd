"""The output of `classify`: what it was made of, bad rows, damaged files, and how an interrupted one goes on."""

import csv
import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_pipeline import FakePipeline
from helpers.full_disk import fill

from transformers_tart.cli import main
from transformers_tart.commands import classify as command
from transformers_tart.commands.output import FIELDS, Finished, Output, fingerprint_file


ROWS = 300
BAD = (17, 140)


@pytest.fixture(autouse=True)
def fake_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: FakePipeline())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_examples(tmp_path / "train.jsonl")
    write_inputs(tmp_path / "in.jsonl")
    return tmp_path


def write_examples(path: Path, first: str = "yes") -> None:
    rows = [{"text": first, "label": "a"}, {"text": "no", "label": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_inputs(path: Path, bad: Sequence[int] = BAD, rows: int = ROWS) -> None:
    texts = [None if i in bad else f"text {i}" for i in range(rows)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def options_of(
    folder: Path, *arguments: object, given: str = "in.jsonl", output: str | None = "out.jsonl"
) -> list[str]:
    files = ["--examples", folder / "train.jsonl", "--input", folder / given]
    files += [] if output is None else ["--output", folder / output]
    return ["classify", *map(str, ["--model", "mini", "--device", "cpu", *files, *arguments])]


def classify(folder: Path, *arguments: object, given: str = "in.jsonl", output: str | None = "out.jsonl") -> int:
    return main(options_of(folder, *arguments, given=given, output=output))


def read(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def test__classify__bad_rows__an_error_beside_their_numbers_and_the_rest_labeled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(folder) == 0
    rows = read(folder / "out.jsonl")
    assert [row["row"] for row in rows] == list(range(ROWS))
    assert [row["row"] for row in rows if row["label"] is None] == list(BAD)
    assert rows[140] == {"row": 140, "label": None, "score": None, "error": "Row 140 has no text."}
    assert set(rows[0]) == {"row", "label", "score"}
    assert f"wrote 300 rows to {folder / 'out.jsonl'}, 2 with errors" in capsys.readouterr().err


def test__classify__backbone_without_examples__refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "mini", "--input", str(folder / "in.jsonl"), "--output", str(folder / "out.jsonl")]
    assert main(["classify", *arguments]) == 1
    assert "mini holds no support set; give labeled examples: --examples FILE" in capsys.readouterr().err
    assert not (folder / "out.jsonl").exists()


@pytest.mark.parametrize("text", [5, 0.5, True, ["a"], {"a": 1}])
def test__classify__text_that_is_no_string__its_row_is_bad(folder: Path, text: object) -> None:
    (folder / "in.jsonl").write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": text}) + "\n")
    assert classify(folder) == 0
    good, bad = read(folder / "out.jsonl")
    assert good["label"] is not None
    assert bad["label"] is None
    assert "Row 1" in bad["error"]


def test__classify__empty_text_and_absent_pair__labeled(folder: Path) -> None:
    rows = [{"text": ""}, {"text": "a", "text_pair": None}, {"text": "a", "text_pair": "b"}, {"id": 3}]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert classify(folder) == 0
    assert [row["label"] is None for row in read(folder / "out.jsonl")] == [False, False, False, True]


def test__classify__bad_rows_to_csv__column_of_errors(folder: Path) -> None:
    assert classify(folder, output="out.csv") == 0
    rows = read(folder / "out.csv")
    assert list(rows[0]) == list(FIELDS)
    assert [i for i, row in enumerate(rows) if row["error"]] == list(BAD)
    assert [row["label"] for row in rows if row["error"]] == ["", ""]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__classify__strict__stops_at_the_first_bad_row_with_the_rows_before(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(folder, "--strict", output=name) == 1
    assert "Row 17 has no text" in capsys.readouterr().err
    assert Output(folder / name).read_finished() == Finished(17, 0, (folder / name).stat().st_size)
    assert classify(folder, output=name) == 0
    assert classify(folder, "--strict", output=name) == 1
    assert "2 rows that could not be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [("in.csv", 'text 9,"b"', "Line 202 of .*in.csv has 2 cells"), ("in.jsonl", '{"text"', "Line 201 of .*in.jsonl")],
)
def test__classify__damaged_line__rows_before_it_written_and_file_and_line_named(
    folder: Path, name: str, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    header = ["text"] if name.endswith("csv") else []
    rows = [f"text {i}" if header else json.dumps({"text": f"text {i}"}) for i in range(ROWS)]
    (folder / name).write_text("\n".join([*header, *rows[:200], line, *rows[200:]]) + "\n")
    assert classify(folder, given=name) == 1
    assert len(read(folder / "out.jsonl")) == 200
    errors = capsys.readouterr().err
    assert re.search(message, errors)
    assert "The 200 rows before are classified first" in errors
    assert errors.count(str(folder / name)) == 2


def test__classify__lone_surrogates__replaced_and_output_is_utf8(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Echo(FakePipeline):
        def __call__(self, texts: Sequence[Any], **_: Any) -> list[list[dict]]:
            seen.extend(texts)
            return [[{"label": "\ud800", "score": 0.5}] for _ in texts]

    monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: Echo())
    (folder / "in.jsonl").write_text('{"text": "a\\ud800b"}\n')
    for name in ("out.jsonl", "out.csv"):
        assert classify(folder, output=name) == 0
        assert read(folder / name)[0]["label"] == "\ufffd"
    assert seen == ["a\ufffdb"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__classify__output_cut_anywhere__same_bytes_in_the_end(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(folder / "in.jsonl", bad=[1], rows=4)
    output = folder / name
    assert classify(folder, output=name) == 0
    whole = output.read_bytes()
    for size in range(len(whole) + 1):
        output.write_bytes(whole[:size])
        kept = Output(output).read_finished()
        assert kept.size <= size
        assert whole.startswith(output.read_bytes()[: kept.size])
        assert classify(folder, output=name) == 0
        assert output.read_bytes() == whole
        before = f"; {kept.rows} rows were finished before" if kept.rows else ""
        closing = f"wrote {4 - kept.rows} rows to {output}, {1 - kept.bad} with errors{before}\n"
        assert closing in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__classify__killed_output__cut_in_place(folder: Path, name: str) -> None:
    assert classify(folder, output=name) == 0
    output, inode = folder / name, (folder / name).stat().st_ino
    with open(output, "ab") as file:
        file.write(b'300,"half a')
    kept = Output(output).read_finished()
    Output(output).cut_torn_row(kept)
    assert kept.rows == ROWS
    assert (output.stat().st_size, output.stat().st_ino) == (kept.size, inode)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__read_finished__many_rows__in_little_memory(tmp_path: Path, name: str) -> None:
    with open(tmp_path / name, "w", newline="") as file:
        file.write("" if name.endswith("jsonl") else "row,label,score,error\r\n")
        for i in range(100_000):
            row = json.dumps({"row": i, "label": "ham", "score": 0.5}) + "\n"
            file.write(row if name.endswith("jsonl") else f"{i},ham,0.5,\r\n")
    tracemalloc.start()
    assert Output(tmp_path / name).read_finished().rows == 100_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def other_input(folder: Path) -> list[str]:
    (folder / "in.jsonl").write_text((folder / "in.jsonl").read_text().replace("text 5", "text five"))
    return []


def longer_input(folder: Path) -> list[str]:
    write_inputs(folder / "in.jsonl", rows=ROWS + 1)
    return []


def other_examples(folder: Path) -> list[str]:
    write_examples(folder / "train.jsonl", first="yes, another")
    return []


def other_model(folder: Path) -> list[str]:
    from transformers_tart.backbones import MINI

    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_bytes((MINI / "config.json").read_bytes())
    return ["--model", str(folder / "model")]


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (other_input, "another input"),
        (longer_input, "another input"),
        (other_examples, "another examples"),
        (other_model, "another model"),
        (lambda folder: ["--dtype", "bfloat16"], "--dtype"),
        (lambda folder: ["--protocol", "loo"], "--protocol"),
        (lambda folder: ["--protocol", "loo", "--template", "{text} {label}"], "--template"),
    ],
)
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__classify__output_of_something_else__refused_and_left_alone_unless_overwritten(
    folder: Path, change: Any, differing: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(folder, output=name) == 0
    before = {path: path.read_bytes() for path in (folder / name, fingerprint_file(folder / name))}
    arguments = change(folder)
    capsys.readouterr()
    assert classify(folder, *arguments, output=name) == 1
    errors = capsys.readouterr().err
    assert "--overwrite" in errors
    assert differing in errors
    assert all(path.read_bytes() == content for path, content in before.items())
    assert classify(folder, *arguments, "--overwrite", output=name) == 0
    errors = capsys.readouterr().err
    assert "wrote 30" in errors
    assert "finished before" not in errors
    assert classify(folder, *arguments, output=name) == 0


def test__classify__model_folder_changed__refused(folder: Path) -> None:
    arguments = other_model(folder)
    assert classify(folder, *arguments) == 0
    assert classify(folder, *arguments) == 0
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    assert classify(folder, *arguments) == 1


def test__classify__other_batch_size__continued(folder: Path) -> None:
    assert classify(folder) == 0
    whole = (folder / "out.jsonl").read_bytes()
    os.truncate(folder / "out.jsonl", 5000)
    assert classify(folder, "--batch-size", 3) == 0
    assert (folder / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize("kept", [None, "{", "[]", '"a"', "{}"])
def test__classify__fingerprint_absent_or_damaged__refused(
    folder: Path, kept: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(folder) == 0
    fingerprint_file(folder / "out.jsonl").unlink()
    if kept is not None:
        fingerprint_file(folder / "out.jsonl").write_text(kept)
    before = (folder / "out.jsonl").read_bytes()
    assert classify(folder) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("out.jsonl", lambda content: content.replace(b'"row": 5,', b'"row": 6,')),
        ("out.jsonl", lambda content: content + b"notes\n"),
        ("out.jsonl", lambda content: content + b"[1]\n"),
        ("out.csv", lambda content: content.replace(b"row,label", b"row,name")),
        ("out.csv", lambda content: content + b"notes\r\n"),
    ],
)
def test__classify__output_edited__refused_and_left_alone(
    folder: Path, name: str, change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(folder, output=name) == 0
    edited = change((folder / name).read_bytes())
    (folder / name).write_bytes(edited)
    assert classify(folder, output=name) == 1
    assert "not an interrupted output of this command" in capsys.readouterr().err
    assert (folder / name).read_bytes() == edited


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "foo"], "device is 'foo'"),
        (["--device", "cuda:77"], "device is 'cuda:77'"),
        (["--device", "-1"], "device is '-1'"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--output", "{folder}/out.txt"], "must be one of .jsonl, .csv, .parquet"),
        (["--output", "{folder}/absent/out.csv"], "no folder"),
        (["--output", "{folder}"], "ending"),
        (["--output", "{folder}/in.jsonl"], "read and cannot be written"),
        (["--output", "{folder}/train.jsonl", "--overwrite"], "read and cannot be written"),
        (["--input", "{folder}/absent.jsonl"], "no file"),
        (["--input", "{folder}/out.xlsx"], "ending"),
        (["--input", "{folder}"], "is a folder. Give a table"),
        (["--input", "{folder}/labels.csv"], "without ['text']; give --text-column "),
        (["--examples", "{folder}/in.jsonl"], "without ['label']; give --label-column "),
        (["--examples", "{folder}/labels.csv"], "without ['text']; give --text-column "),
        (["--examples", "{folder}/empty.csv"], "is empty"),
        (["--examples", "{folder}/ragged.csv"], "Line 3 of"),
        (["--protocol", "loo", "--template", "no place"], "template"),
    ],
)
def test__classify__bad_argument__said_before_a_model_is_loaded(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(command.common, "load_pipeline", load)
    (folder / "labels.csv").write_text("name,label\na,b\n")
    (folder / "ragged.csv").write_text("text,label\na,b\nc\n")
    (folder / "empty.csv").write_text("")
    before = (folder / "in.jsonl").read_bytes()
    assert classify(folder, *(argument.format(folder=folder) for argument in arguments), output=None) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert (folder / "in.jsonl").read_bytes() == before


@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", None])
@pytest.mark.parametrize(
    ("name", "content"), [("in.csv", ""), ("in.csv", "text\n"), ("in.jsonl", ""), ("in.jsonl", "\n"), ("in.txt", "")]
)
def test__classify__no_rows__exit_0(
    folder: Path, name: str, content: str, output: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_text(content)
    assert classify(folder, given=name, output=output) == 0
    captured = capsys.readouterr()
    assert "classify: wrote 0 rows to " in captured.err
    assert captured.out == ""
    if output is not None:
        assert read(folder / output) == []


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test__classify__full_disk__said_and_finished_rows_kept(
    folder: Path, small_disk: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inputs(folder / "in.jsonl", rows=3000)
    assert classify(folder, output=name) == 0
    whole, output = (folder / name).read_bytes(), small_disk / name
    fill(small_disk, leave=24 << 10)
    assert classify(folder, "--output", output, output=None) == 1
    assert f"No space left on device: '{output}'" in capsys.readouterr().err
    assert whole.startswith(output.read_bytes())
    rows = Output(output).read_finished().rows
    assert 100 < rows < 3000
    (small_disk / "filler").unlink()
    assert classify(folder, "--output", output, output=None) == 0
    assert f"{rows:,} rows were finished before" in capsys.readouterr().err
    assert output.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test__classify__output_that_another_run_writes__refused_and_left_alone(
    folder: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[subprocess.CompletedProcess[str]] = []
    contents = []

    class Impatient(FakePipeline):
        def __call__(self, texts: Sequence[Any], **_: Any) -> list[list[dict]]:
            if not ended:
                contents.append((folder / "out.jsonl").read_bytes())
                second = [sys.executable, "-m", "transformers_tart", *options_of(folder, *options)]
                ended.append(subprocess.run(second, capture_output=True, text=True, timeout=300))
                contents.append((folder / "out.jsonl").read_bytes())
            return super().__call__(texts)

    monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: Impatient())
    assert classify(folder) == 0
    assert ended[0].returncode == 1
    assert "Another process is writing to" in ended[0].stderr
    assert contents[0] == contents[1]
    assert len(read(folder / "out.jsonl")) == ROWS
    assert classify(folder, "--overwrite") == 0  # the lock has ended with the run
