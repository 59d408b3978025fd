"""`classify` and `push` with candidate labels, label hints and descriptions."""

import json
from pathlib import Path

import pytest
from helpers.builders import make_examples, make_texts, save_backbone

from transformers_tart import TartClassificationPipeline
from transformers_tart.cli import main


LABELS = ("w1 w2", "w3 w4")
TEXTS = make_texts(6, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, texts, examples and descriptions of the classes."""
    path = tmp_path_factory.mktemp("classes")
    save_backbone(path / "backbone")
    write(path / "texts.jsonl", [{"text": text} for text in TEXTS])
    write(path / "examples.jsonl", make_examples(8, LABELS))
    descriptions = dict(zip(LABELS, ("w7 w8", "w9"), strict=True))
    (path / "descriptions.json").write_text(json.dumps(descriptions, indent=2))
    write(path / "rows.jsonl", [{"label": label, "description": text} for label, text in descriptions.items()])
    return path


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, *arguments: object) -> list[dict]:
    """Run the command and return its rows."""
    output = folder / "out.jsonl"
    model = ["--model", folder / "backbone", "--device", "cpu", "--input", folder / "texts.jsonl"]
    assert main(["classify", *map(str, [*model, "--output", output, "--overwrite", *arguments])]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


def test__classify__candidate_labels__rows_of_labels_and_scores(folder: Path) -> None:
    rows = run(folder, "--candidate-labels", ",".join(LABELS))
    assert [list(row) for row in rows] == [["row", "label", "score"]] * len(TEXTS)
    classify = TartClassificationPipeline(str(folder / "backbone"), candidate_labels=list(LABELS))
    expected = classify(TEXTS)
    assert [row["label"] for row in rows] == [each["labels"][0] for each in expected]
    assert [row["score"] for row in rows] == pytest.approx([each["scores"][0] for each in expected], abs=1e-4)


def test__classify__hints__change_answers_or_not(folder: Path) -> None:
    examples = ["--examples", folder / "examples.jsonl"]
    plain, none = run(folder, *examples), run(folder, *examples, "--no-hints")
    assert plain == run(folder, *examples, "--hints", "auto")
    assert plain != none
    described = run(folder, *examples, "--label-descriptions", folder / "descriptions.json")
    assert described not in (plain, none)
    assert described == run(folder, *examples, "--label-descriptions", folder / "rows.jsonl")
    assert described != run(
        folder, *examples, "--label-descriptions", folder / "rows.jsonl", "--hypothesis-template", "w20 {}"
    )
    assert plain != run(folder, *examples, "--unlabeled", folder / "texts.jsonl")
    assert plain == run(folder, *examples, "--hints", "label_similarity")


def test__classify__other_hints__another_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "continued.jsonl"
    model = ["--model", folder / "backbone", "--device", "cpu", "--input", folder / "texts.jsonl"]
    arguments = [*map(str, [*model, "--output", output, "--candidate-labels", ",".join(LABELS)])]
    assert main(["classify", *arguments]) == main(["classify", *arguments]) == 0
    assert main(["classify", *arguments, "--hypothesis-template", "w20 {}"]) == 1
    assert "another choice of --hypothesis-template;" in capsys.readouterr().err
    assert main(["classify", *arguments, "--label-descriptions", str(folder / "descriptions.json")]) == 1
    assert "another --label-descriptions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hypothesis-template", "w1 {}"], "Give --examples or --candidate-labels with --hypothesis-template"),
        (["--candidate-labels", ","], "--candidate-labels is empty"),
        (["--candidate-labels", "w1,w2", "--hints", "unknown"], "hints"),
        (["--candidate-labels", "w1,w2", "--no-hints"], "and --no-hints leaves"),
        (["--candidate-labels", "w1,w2", "--label-descriptions", "texts.jsonl"], "needs the columns"),
        (["--candidate-labels", "w1,w2", "--label-descriptions", "absent.json"], "There is no file"),
        ([], "--candidate-labels a,b"),
    ],
)
def test__classify__classes_that_cannot_be_used__named(
    arguments: list[str],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert main(["classify", "--model", "backbone", "--input", "texts.jsonl", "--device", "cpu", *arguments]) == 1
    assert message in capsys.readouterr().err


def test__push__reasoner_with_candidate_labels__refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from helpers.builders import shared_reasoner

    shared_reasoner().save_pretrained(tmp_path)
    arguments = ["--model", str(tmp_path), "--repo-id", "me/task", "--candidate-labels", "a,b"]
    assert main(["push", *arguments]) == 1
    assert "--candidate-labels cannot be used" in capsys.readouterr().err
