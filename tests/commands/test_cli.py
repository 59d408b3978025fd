"""The command line: streams, exit codes, files that are continued."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.builders import build_backbone, build_tokenizer, make_examples, make_texts
from helpers.published import SIZES, published_state
from transformers import AutoModel, AutoTokenizer

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification, View
from transformers_tart.backbones import MINI
from transformers_tart.cli import COMMANDS, build_parser, main
from transformers_tart.commands import demo
from transformers_tart.commands.demo import load_demo_task
from transformers_tart.commands.output import Output, fingerprint_file
from transformers_tart.embeddings.views import PRESETS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with its tokenizer, examples and texts in every format."""
    from datasets import Dataset

    path = tmp_path_factory.mktemp("cli")
    build_backbone("llama").save_pretrained(path / "backbone")
    build_tokenizer().save_pretrained(path / "backbone")
    (path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_examples(12)))
    texts = make_texts(40, seed=3)
    (path / "texts.txt").write_text("\n".join(texts) + "\n")
    (path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with open(path / "texts.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    Dataset.from_dict({"text": texts}).to_parquet(path / "texts.parquet")
    return path


def classify(folder: Path, *arguments: object) -> list[str]:
    """Arguments of a classify command on the CPU."""
    model = ["--model", folder / "backbone", "--examples", folder / "examples.jsonl", "--device", "cpu"]
    return ["classify", *map(str, [*model, *arguments])]


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_answers(first: list[dict], second: list[dict]) -> None:
    assert [(row["row"], row["label"]) for row in first] == [(row["row"], row["label"]) for row in second]
    assert all(abs(a["score"] - b["score"]) < 1e-4 for a, b in zip(first, second, strict=True))


def copy_output(source: Path, target: Path) -> None:
    """Copy an output with its fingerprint."""
    shutil.copy(source, target)
    shutil.copy(fingerprint_file(source), fingerprint_file(target))


@pytest.fixture(scope="module")
def answers(folder: Path) -> list[dict]:
    """The uninterrupted answers."""
    output = folder / "all.jsonl"
    assert main(classify(folder, "--input", folder / "texts.jsonl", "--output", output)) == 0
    return read_jsonl(output)


@pytest.mark.parametrize("command", COMMANDS)
def test__help__each_command__ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"transformers-tart {command} " in capsys.readouterr().out.split("example:")[1]


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["classify"]])
def test__usage__wrong__exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def read_demo(out: str) -> dict[str, list[str]]:
    """The accuracy table of a demo, by task."""
    table = out.split("accuracy on new texts")[1].splitlines()[1:]
    return {line.split()[0]: line.split(")")[1].split() for line in table if ")" in line}


@pytest.fixture
def one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo of one task, which takes a third of the time."""
    monkeypatch.setattr(demo, "TASKS", ("spam",))


@pytest.mark.slow
def test__demo__embedded_model__three_tasks_better_than_guessing_and_no_messages() -> None:
    command = [sys.executable, "-m", "transformers_tart", "demo", "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (result.returncode, result.stderr) == (0, "")
    out = result.stdout
    assert out.startswith("mini: 5.3 million parameters")
    table = read_demo(out)
    assert list(table) == ["spam", "topic", "sentiment"]
    for tart, from_names, without_names, plain, probe, prompting, guessing in table.values():
        assert float(from_names.strip("%")) >= float(guessing.strip("%")) - 15
        assert float(without_names.strip("%")) > float(guessing.strip("%")) + 15
        assert float(tart.strip("%")) > float(guessing.strip("%")) + 15
        assert float(plain.strip("%")) > float(guessing.strip("%")) + 15
        assert float(probe.strip("%")) > float(guessing.strip("%")) + 15
        assert float(prompting.strip("%")) >= float(guessing.strip("%"))
    assert max(map(len, out.splitlines())) <= 119
    for who, preset in (("TART and the probe", "default"), ("plain views", "plain")):
        assert f"\nviews of {who}: {', '.join(PRESETS['causal'][preset])}\n" in out


def test__demo__revision_without_a_model__refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--revision", "main"]) == 1
    assert "name one with --model" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("one_task")
def test__demo__another_causal_model__named(stories_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--model", stories_folder]) == 0
    out = capsys.readouterr().out
    assert stories_folder in out
    assert "-" not in read_demo(out)["spam"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_task")
def test__demo__model_without_vocabulary_head__not_prompted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    AutoModel.from_pretrained(MINI).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(MINI).save_pretrained(tmp_path)
    assert main(["demo", "--model", str(tmp_path), "--device", "cpu"]) == 0
    tart, *_, prompting, _ = read_demo(capsys.readouterr().out)["spam"]
    assert (tart == "-", prompting) == (False, "-")


@pytest.mark.slow
@pytest.mark.usefixtures("one_task")
def test__demo__protocol_and_template__change_the_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for options in ([], ["--protocol", "loo", "--template", r"Text: {text}\nLabel: {label}\n"]):
        assert main(["demo", "--device", "cpu", *options]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0].split("accuracy on")[0] != tables[1].split("accuracy on")[0]


@pytest.mark.slow
@pytest.mark.usefixtures("one_task")
def test__demo__plain_views__equal_to_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--device", "cpu", "--views", "plain"]) == 0
    tart, _, _, plain, *_ = read_demo(capsys.readouterr().out)["spam"]
    assert tart == plain


@pytest.mark.parametrize(
    "command", ["demo", "classify --input a", "evaluate --task a --output b", "diagnose --task a"]
)
def test__views__names__checked_and_listed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, arguments = build_parser(), [*command.split(), "--model", "mini", "--views"]
    assert [parser.parse_args([*arguments, given]).views for given in ("best", "one_word", "one_word, echo_all")] == [
        "best",
        "one_word",
        ["one_word", "echo_all"],
    ]
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([*arguments, "one_word,odd"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "views has 'odd'" in error
    assert "'default', 'plain', 'best'" in error
    assert "'one_word'" in error


def save_task(folder: Path, target: Path, *, has_support: bool = True) -> Path:
    """Save a composition that reads the view `one_word`."""
    model = TartForSequenceClassification.from_backbone(folder / "backbone", views="one_word")
    examples = make_examples(12) if has_support else None
    TartClassificationPipeline(model=model, examples=examples).save_pretrained(target)
    return target


def test__classify__task_of_other_views__refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["classify", "--model", save_task(folder, tmp_path / "task"), "--input", folder / "texts.txt"]
    for given in ("default", "mean"):
        assert main([*map(str, command), "--views", given]) == 1
        captured = capsys.readouterr()
        assert "was embedded with other values of" in captured.err
        assert captured.out == ""
    assert main([*map(str, command), "--views", "one_word"]) == 0
    again = capsys.readouterr().out
    assert main(list(map(str, command))) == 0
    assert capsys.readouterr().out == again


def test__classify__composition_without_support__other_views_taken(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, files = save_task(folder, tmp_path / "task", has_support=False), ["--input", folder / "texts.txt"]
    rows = []
    for model, views in ((task, "mean,last"), (folder / "backbone", "mean,last"), (task, "one_word")):
        given = [
            "--model",
            model,
            "--examples",
            folder / "examples.jsonl",
            *files,
            "--views",
            views,
            "--device",
            "cpu",
        ]
        assert main(["classify", *map(str, given)]) == 0
        rows.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert_same_answers(rows[0], rows[1])
    assert rows[0] != rows[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--views", "plain", "--template", "{text}"], "leave one of them out"),
        (["--protocol", "loo", "--template", "{text}"], "{label}"),
        (["--template", "{words}"], "words"),
    ],
)
def test__classify__template_that_does_not_fit__said_before_the_work(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(classify(folder, "--input", folder / "texts.txt", *options)) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test__classify__template_of_the_only_view__its_predictions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = 'This text: "{text}" means in one word: "'
    assert main(classify(folder, "--input", folder / "texts.txt", "--template", template)) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = TartForSequenceClassification.from_backbone(
        folder / "backbone", views=View(template=template, pooling="mean", layers="all")
    )
    expected = TartClassificationPipeline(model=model, examples=make_examples(12))(make_texts(40, seed=3))
    assert_same_answers(rows, [{"row": i, **found} for i, found in enumerate(expected)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [(r"{text}\n\t{label}", "{text}\n\t{label}"), ("{text}\\t\n{label}", "{text}\\t\n{label}")],
)
def test__template__escapes__replaced_unless_it_has_line_breaks(given: str, expected: str) -> None:
    assert build_parser().parse_args(["demo", "--template", given]).template == expected


@pytest.mark.slow
def test__classify__embedded_model__by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = load_demo_task("spam").examples
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "in.txt").write_text("Call now to win free cash!\nShall we walk home after dinner?\n")
    files = ["--examples", str(tmp_path / "examples.jsonl"), "--input", str(tmp_path / "in.txt")]
    assert main(["classify", "--model", "mini", *files]) == 0
    answers = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert answers == ["spam", "ham"]


@pytest.mark.parametrize("name", ["texts.txt", "texts.csv", "texts.parquet"])
def test__classify__each_format__same_answers(folder: Path, answers: list[dict], name: str, tmp_path: Path) -> None:
    assert len(answers) == 40
    assert main(classify(folder, "--input", folder / name, "--output", tmp_path / "out.jsonl")) == 0
    assert_same_answers(read_jsonl(tmp_path / "out.jsonl"), answers)


def test__classify__no_output__rows_on_stdout_alone(
    folder: Path, answers: list[dict], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(classify(folder, "--input", folder / "texts.jsonl", "--batch-size", 7)) == 0
    assert_same_answers([json.loads(line) for line in capsys.readouterr().out.splitlines()], answers)


def test__classify__csv_output__header_and_rows(folder: Path, answers: list[dict], tmp_path: Path) -> None:
    assert main(classify(folder, "--input", folder / "texts.csv", "--output", tmp_path / "out.csv")) == 0
    with open(tmp_path / "out.csv", newline="") as file:
        rows = [{"row": int(r["row"]), "label": r["label"], "score": float(r["score"])} for r in csv.DictReader(file)]
    assert_same_answers(rows, answers)


@pytest.mark.parametrize("keep", [0, 1, 333, 1000])
def test__classify__interrupted_output__continued(
    folder: Path, answers: list[dict], tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    copy_output(folder / "all.jsonl", output)
    os.truncate(output, keep)
    kept = output.read_bytes()[: output.read_bytes().rfind(b"\n") + 1]
    assert main(classify(folder, "--input", folder / "texts.jsonl", "--output", output)) == 0
    assert output.read_bytes().startswith(kept)
    assert_same_answers(read_jsonl(output), answers)
    done = kept.count(b"\n")
    before = f"; {done} rows were finished before" if done else ""
    assert f"wrote {40 - done} rows to {output}, 0 with errors{before}" in capsys.readouterr().err


def test__classify__finished_output__left_as_it_is(folder: Path, answers: list[dict]) -> None:
    before = (folder / "all.jsonl").read_bytes()
    assert main(classify(folder, "--input", folder / "texts.jsonl", "--output", folder / "all.jsonl")) == 0
    assert (folder / "all.jsonl").read_bytes() == before


def test__classify__foreign_output__refused_and_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("precious notes\n")
    assert main(classify(folder, "--input", folder / "texts.jsonl", "--output", output)) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "precious notes\n"


@pytest.mark.exhaustive  # kills and continued runs are in tests/robustness
@pytest.mark.slow
def test__classify__killed_in_the_middle__finished_rows_are_whole(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    (tmp_path / "in.txt").write_text("\n".join(make_texts(20_000, seed=9)) + "\n")
    command = [sys.executable, "-m", "transformers_tart"]
    arguments = classify(folder, "--input", tmp_path / "in.txt", "--output", output, "--batch-size", 4)
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None and (not output.exists() or output.stat().st_size == 0):
        os.sched_yield()
    process.kill()
    process.wait()
    assert 0 < Output(output).read_finished().rows < 20_000


@pytest.mark.parametrize("name", ["examples.csv", "examples.parquet"])
def test__classify__examples_in_each_format__same_answers(
    folder: Path, answers: list[dict], name: str, tmp_path: Path
) -> None:
    from datasets import ClassLabel, Dataset

    table = Dataset.from_list(make_examples(12))
    if name.endswith("csv"):
        table.to_csv(tmp_path / name)
    else:
        table.cast_column("label", ClassLabel(names=["ham", "spam"])).to_parquet(tmp_path / name)
    files = ["--input", folder / "texts.jsonl", "--output", tmp_path / "out.jsonl"]
    model = ["--model", folder / "backbone", "--examples", tmp_path / name, "--device", "cpu"]
    assert main(["classify", *map(str, [*model, *files])]) == 0
    assert_same_answers(read_jsonl(tmp_path / "out.jsonl"), answers)


@pytest.mark.slow
def test__classify__whole_run__no_copy_of_the_texts_in_a_cache(folder: Path, tmp_path: Path) -> None:
    row = {"text": "w1 zebracrossing w2", "label": "ham"}
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [row, *make_examples(5)]))
    files = ["--input", folder / "texts.txt", "--output", tmp_path / "out.jsonl"]
    model = ["--model", folder / "backbone", "--examples", tmp_path / "examples.jsonl", "--device", "cpu"]
    command = [sys.executable, "-m", "transformers_tart", "classify", *map(str, [*model, *files])]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    kept = [path for path in (tmp_path / "home").rglob("*") if path.is_file() and b"zebra" in path.read_bytes()]
    assert kept == []


def test__classify__csv_cells_like_numbers_or_na__stay_texts(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n12\nNA\n\nw1 w2\n")
    assert main(classify(folder, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.jsonl")) == 0
    assert len(read_jsonl(tmp_path / "out.jsonl")) >= 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.xlsx", "x", "ending"),
        ("in.jsonl", None, "no file"),
        ("in.jsonl", '{"txt": "w1"}\n', 'give --text-column "txt" if'),
    ],
)
def test__classify__bad_input__said(
    folder: Path, tmp_path: Path, name: str, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(classify(folder, "--input", tmp_path / name)) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test__classify__empty_file__no_rows(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("")
    assert main(classify(folder, "--input", tmp_path / "in.txt")) == 0
    assert capsys.readouterr().out == ""


def test__classify__model_absent__named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("w1\n")
    assert main(["classify", "--model", "nobody/nothing", "--input", str(tmp_path / "in.txt")]) == 1
    assert "nobody/nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "device",
    [
        pytest.param(["--device", "cpu"], id="cpu"),
        pytest.param([], id="default", marks=[pytest.mark.exhaustive, pytest.mark.slow]),
    ],
)
def test__classify__two_processes__same_rows_in_order(
    folder: Path, answers: list[dict], tmp_path: Path, device: list[str]
) -> None:
    output = tmp_path / "out.jsonl"
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    model = ["--model", folder / "backbone", "--examples", folder / "examples.jsonl", "--dtype", "float32", *device]
    files = ["--input", folder / "texts.jsonl", "--output", output, "--batch-size", 3]
    arguments = ["classify", *map(str, [*model, *files])]
    command = [sys.executable, *launch, *quiet, "-m", "transformers_tart", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same_answers(read_jsonl(output), answers)


def test__convert__published_checkpoint__reasoner_folder(tmp_path: Path) -> None:
    import torch

    from transformers_tart import TartReasoner

    torch.save(published_state(), tmp_path / "head.pt")
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    files = ["--checkpoint", tmp_path / "head.pt", "--config", tmp_path / "config.json", "--output", tmp_path / "out"]
    assert main(["convert", *map(str, files)]) == 0
    assert TartReasoner.from_pretrained(tmp_path / "out").config.architecture == "gpt2"


def test__push__local_backbone__refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = ["--examples", str(folder / "examples.jsonl")]
    assert main(["push", "--model", str(folder / "backbone"), *examples, "--repo-id", "me/task"]) == 1
    assert "local folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "architecture", "options"), [("kernel", "kernel", ["--no-validation"]), ("paper-small", "gpt2", [])]
)
def test__train_reasoner__a_step__loadable(preset: str, architecture: str, options: list[str], tmp_path: Path) -> None:
    from transformers_tart import TartReasoner

    assert main(["train-reasoner", "--output", str(tmp_path), "--preset", preset, "--max-steps", "1", *options]) == 0
    assert TartReasoner.from_pretrained(tmp_path).config.architecture == architecture
    card = (tmp_path / "README.md").read_text()
    assert f"| preset | `{preset}` |" in card
    assert ("| tasks | reasoner | logistic_regression | kernel_ridge |" in card) == (not options)


def test__train_reasoner__unknown_preset__wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train-reasoner", "--output", "nowhere", "--preset", "huge"])
    assert stop.value.code == 2
    assert "paper-258" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--task", "nowhere", "--output", "out"], "There are no tasks ['nowhere']"),
        (["evaluate", "--task", "sms_spam", "nowhere", "--output", "out"], "There are no tasks ['nowhere']"),
        (["evaluate", "--task", "sms_spam", "--methods", "odd", "--output", "out"], "Unknown methods"),
        (["evaluate", "--task", "sms_spam", "--device", "foo", "--output", "out"], "The device is 'foo'"),
        (["evaluate", "--task", "sms_spam", "--device", "cuda:77", "--output", "out"], "The device is 'cuda:77'"),
        (["evaluate", "--task", "sms_spam", "--batch-size", "0", "--output", "out"], "--batch-size is 0"),
        (["evaluate", "--task", "sms_spam", "--max-test", "0", "--output", "out"], "--max-test is 0"),
        (["evaluate", "--task", "sms_spam", "--max-length", "-1", "--output", "out"], "--max-length is -1"),
        (["evaluate", "--task", "sms_spam", "--seeds", "0", "--output", "out"], "--seeds is 0"),
        (["evaluate", "--task", "sms_spam", "--output", "file"], "file"),
        (["diagnose", "--task", "sms_spam", "--device", "foo"], "The device is 'foo'"),
        (["diagnose", "--task", "sms_spam", "--json", "absent/out.json"], "There is no folder absent"),
        (["train-reasoner", "--max-steps", "0", "--output", "out"], "--max-steps is 0"),
        (["train-reasoner", "--output", "file"], "file"),
        (["evaluate-reasoner", "a.safetensors", "--output", "absent/out.json"], "There is no folder absent"),
        (["bench", "--json", "absent/out.json"], "There is no folder absent"),
        (["bench", "--device", "foo"], "The device is 'foo'"),
        (["demo", "--device", "foo"], "The device is 'foo'"),
    ],
)
def test__command__bad_argument__said_before_the_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    model = ["--model", "mini"] if arguments[0] in ("evaluate", "diagnose") else []
    assert main([*arguments, *model]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
