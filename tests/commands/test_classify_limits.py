"""Withheld answers and label sets of `classify`."""

import json
from pathlib import Path

import pytest
from helpers.builders import make_examples

from transformers_tart.cli import main
from transformers_tart.commands.output import Output


def write(folder: Path, rows: list[dict]) -> list[str]:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "in.jsonl").write_text('{"text": "w1 w2"}\n{"text": null}\n{"text": "w40"}\n')
    files = ["--examples", str(folder / "train.jsonl"), "--input", str(folder / "in.jsonl")]
    return ["classify", "--model", "mini", "--device", "cpu", *files]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test__limits__withheld_answers__are_finished_and_not_bad(ending: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{ending}"
    options = ["--abstain-below", "1", "--coverage", "0.9", "--out-of-scope", "--output", str(output)]
    assert main([*write(tmp_path, make_examples(20)), *options]) == 0
    finished = Output(output, ("row", "label", "score", "error", "labels", "scores", "out_of_scope")).read_finished()
    assert (finished.rows, finished.bad) == (3, 1)
    if ending == "jsonl":
        first, bad, _ = map(json.loads, output.read_text().splitlines())
        assert (first["label"], first["labels"]) == (None, [])
        assert 0 <= first["out_of_scope"] < 1 <= len(bad["error"])


def test__limits__label_lists__best_and_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "label": [[], ["a"], ["a", "b"], ["b"]][i % 4]} for i, row in enumerate(make_examples(8))]
    assert main([*write(tmp_path, rows), "--top-k", "all"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert set(first["labels"]) == {"a", "b"}
    assert all(0 <= score <= 1 for score in first["scores"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coverage", "0.9", "--top-k", "2"], "--coverage and --top-k"),
        (["--coverage", "1"], "above 0 and below 1"),
    ],
)
def test__limits__that_cannot_be__refused_before_loading(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*write(tmp_path, make_examples(4)), *options]) == 1
    assert message in capsys.readouterr().err


def test__limits__no_share__usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*write(tmp_path, make_examples(4)), "--abstain-below", "2"])
    assert "'2' is no number from 0 to 1" in capsys.readouterr().err
