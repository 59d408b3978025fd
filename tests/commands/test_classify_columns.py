"""`classify`: columns of other names, columns that are kept, several classes, parquet output and stdin."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from helpers.builders import make_examples, make_texts
from helpers.fake_pipeline import LABELS, FakePipeline
from transformers.utils import logging

from transformers_tart.cli import main
from transformers_tart.commands import classify as command
from transformers_tart.commands.output import Output, fingerprint_file


ROWS = 300
BAD = 17
KEPT = ("id", "body", "label", "when")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: FakePipeline())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Examples and inputs with odd names of columns."""
    examples = [{"topic": row["label"], "body": row["text"], "id": i} for i, row in enumerate(make_examples(12))]
    write(tmp_path / "train.jsonl", examples)
    write(tmp_path / "in.jsonl", inputs())
    with open(tmp_path / "in.csv", "w", newline="") as file:
        table = csv.DictWriter(file, KEPT)
        table.writeheader()
        table.writerows(inputs())
    rows = [{**row, "when": datetime(2026, 1, 1, i % 24)} for i, row in enumerate(inputs())]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    return tmp_path


def inputs() -> list[dict]:
    texts = make_texts(ROWS, seed=3)
    rows = [{"id": i, "body": text, "label": "mine", "when": [i, None]} for i, text in enumerate(texts)]
    rows[BAD]["body"] = None
    return rows


def write(path: Path, rows: Sequence[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, *arguments: object, given: str = "in.jsonl", output: str | None = "out.jsonl") -> int:
    files = ["--examples", folder / "train.jsonl", "--text-column", "body", "--label-column", "topic"]
    files += ["--input", given if given == "-" else folder / given]
    files += [] if output is None else ["--output", folder / output]
    return main(["classify", *map(str, ["--model", "mini", "--device", "cpu", *files, *arguments])])


def read(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
@pytest.mark.parametrize("given", ["in.jsonl", "in.csv", "in.parquet"])
def test__keep_columns__each_format__beside_the_predictions(
    folder: Path, given: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = 0 if given == "in.csv" else 1  # an empty cell of csv is an empty text
    assert run(folder, "--keep-columns", "--top-k", "2", given=given, output=output) == 0
    assert f"classify: wrote 300 rows to {folder / output}, {bad} with errors\n" in capsys.readouterr().err
    rows = read(folder / output)
    assert [int(row["row"]) for row in rows] == [int(row["id"]) for row in rows] == list(range(ROWS))
    assert [row["body"] or None for row in rows] == [row["body"] or None for row in inputs()]
    assert {row["input_label"] for row in rows} == {"mine"}
    ranked = rows[0]["labels"], rows[0]["scores"]
    labels, scores = map(json.loads, ranked) if output == "out.csv" else ranked
    assert (rows[0]["label"], float(rows[0]["score"])) == (labels[0], scores[0])
    assert len(set(labels)) == len(scores) == 2
    assert not (folder / "out.parquet.part.jsonl").exists()
    if given == output.replace("out", "in") == "in.parquet":
        assert rows[3]["when"] == datetime(2026, 1, 1, 3)
        assert rows[BAD]["label"] is rows[BAD]["labels"] is None
        assert rows[BAD]["error"] == "Row 17 has no text."


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("output", ["out.jsonl", "out.csv", "out.parquet"])
def test__new_options__output_cut_or_finished__same_in_the_end(
    folder: Path, output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--keep-columns", "--top-k", "all"]
    assert run(folder, *options, output=output) == 0
    whole = read(folder / output)
    before = (folder / output).read_bytes()
    assert len(whole[0]["labels"]) >= len(LABELS)
    assert run(folder, *options, output=output) == 0
    assert f"wrote 0 rows to {folder / output}, 0 with errors; 300 rows were finished" in capsys.readouterr().err
    assert (folder / output).read_bytes() == before
    for changed, named in (
        (["--keep-columns"], "--top-k"),
        (["--abstain-below", "0.5"], "--keep-columns, --top-k, --abstain-below"),
        ([*options, "--label-column", "id"], "--label-column"),
    ):
        assert run(folder, *changed, output=output) == 1
        assert f"was made with another choice of {named}; give" in capsys.readouterr().err
    assert (folder / output).read_bytes() == before
    work = Output(folder / output).work
    if work != folder / output:
        (folder / output).unlink()
        monkeypatch.setattr(command, "BATCHES_PER_WINDOW", 1)
        stop_after(monkeypatch, 100)
        assert run(folder, *options, output=output) == 1
        assert f"wrote 96 rows to {work}" in capsys.readouterr().err
        assert not (folder / output).exists()
        monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: FakePipeline())
        assert run(folder, "--keep-columns", output=output) == 1
        assert "was made with another choice of" in capsys.readouterr().err
    os.truncate(work, work.stat().st_size - 9)
    assert run(folder, *options, output=output) == 0
    assert "rows were finished before" in capsys.readouterr().err
    assert read(folder / output) == whole
    assert run(folder, output=output) == 1
    assert run(folder, "--overwrite", output=output) == 0
    assert set(read(folder / output)[0]) <= {"row", "label", "score", "error"}


def stop_after(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Fail after some rows, as a full memory does."""
    seen: list[Any] = []

    class Failing(FakePipeline):
        def __call__(self, texts: Sequence[Any], top_k: int | None = 1, **_: Any) -> list[list[dict]]:
            seen.extend(texts)
            if len(seen) > rows:
                raise OSError("out of memory")
            return super().__call__(texts, top_k)

    monkeypatch.setattr(command.common, "load_pipeline", lambda *args, **kwargs: Failing())


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("rows", "output", "message"),
    [
        ([{"body": "a", "n": 1}, {"body": "b", "n": "x"}], "out.parquet", "several types, which parquet"),
        ([{"body": "a", "row": 1, "input_row": 2}], "out.csv", "['row'] of the input and input_row are one"),
    ],
)
def test__keep_columns__impossible__refused_at_once(
    rows: list[dict], output: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "odd.jsonl", rows)
    assert run(folder, "--keep-columns", given="odd.jsonl", output=output) == 1
    assert message in capsys.readouterr().err
    assert not (folder / output).exists()
    assert not fingerprint_file(folder / output).exists()


@pytest.mark.usefixtures("fake")
def test__keep_columns__bytes__parquet_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pyarrow.table({"body": ["a", "b"], "raw": [b"x", b"y"]})
    pyarrow.parquet.write_table(table, folder / "raw.parquet")
    assert run(folder, "--keep-columns", given="raw.parquet") == 1
    assert "['raw'] of" in capsys.readouterr().err
    assert run(folder, "--keep-columns", given="raw.parquet", output="out.parquet") == 0
    assert [row["raw"] for row in read(folder / "out.parquet")] == [b"x", b"y"]


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.usefixtures("fake")
def test__stdin__lines_or_jsonl__as_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "in.txt").write_text("a b\n\nc, d\n")
    assert run(folder, given="in.txt", output=None) == 0
    expected = capsys.readouterr().out
    give_stdin(monkeypatch, b"a b\n\nc, d\n")
    assert run(folder, given="-", output=None) == 0
    captured = capsys.readouterr()
    assert captured.out == expected
    assert "wrote 3 rows to stdout, 0 with errors" in captured.err
    lines = b"".join(
        json.dumps({"body": text, "id": i}).encode() + b"\n" for i, text in enumerate(["a b", "", "c, d"])
    )
    give_stdin(monkeypatch, lines)
    assert run(folder, "--keep-columns", "--input-format", "jsonl", given="-", output=None) == 0
    kept = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert [row["id"] for row in kept] == [0, 1, 2]
    assert [row["label"] for row in kept] == [json.loads(line)["label"] for line in expected.split("\n")[:-1]]
    give_stdin(monkeypatch, lines)
    assert run(folder, given="-", output=None) == 1
    assert "give --input-format jsonl, or txt for texts" in capsys.readouterr().err
    assert run(folder, "--input-format", "jsonl", output=None) == 1
    assert "--input-format is for --input -" in capsys.readouterr().err
    give_stdin(monkeypatch, b"a\n\xe9\n")
    assert run(folder, given="-", output=None) == 1
    assert "classify: Line 2 of stdin is not UTF-8" in capsys.readouterr().err.splitlines()[-1]
    for _ in range(2):
        give_stdin(monkeypatch, b"a b\nc\n")
        assert run(folder, given="-", output="out.csv") == 0
    assert "2 rows were finished before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text-column", "text"], "without ['text']; give --text-column \"body\" if that is the column"),
        (["--label-column", "label"], 'give --label-column "topic" if that is the column, or rename the columns.'),
        (["--image-column", "body"], "There is no --image-column for this model; its columns are given by --text-col"),
        (["--candidate-labels", "ham"], "is not among the 1 --candidate-labels, ['ham']"),
    ],
)
def test__errors__arguments_of_functions__named_as_options(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, *arguments, output=None) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "some", "1.5"])
def test__top_k__no_number__usage_error(given: str, folder: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(folder, f"--top-k={given}")
    assert caught.value.code == 2


@pytest.mark.slow
def test__classify__mini__other_columns_same_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "usual.jsonl", make_examples(12))
    write(folder / "texts.jsonl", [{"text": row["body"]} for row in inputs()[:9]])
    write(folder / "bodies.jsonl", inputs()[:9])
    shared = ["classify", "--model", "mini", "--device", "cpu"]
    usual = ["--examples", folder / "usual.jsonl", "--input", folder / "texts.jsonl"]
    assert main([*shared, *map(str, usual)]) == 0
    expected = capsys.readouterr().out
    assert run(folder, given="bodies.jsonl", output=None) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("is_terminal", [True, False])
def test__progress__on_a_terminal_alone__rows_of_all(
    is_terminal: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert run(folder, given="in.parquet") == 0
    captured = capsys.readouterr()
    assert ("classifying: 100%" in captured.err) == ("300/300" in captured.err) == is_terminal
    assert captured.out == ""


def test__load_pipeline__on_a_terminal__encoding_of_examples_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    write(folder / "few.jsonl", inputs()[:2])
    assert run(folder, given="few.jsonl") == 0
    assert "embedding: 100%" in capsys.readouterr().err
