"""The runner: a line for each run as soon as it is done, none twice, and failures that stop nothing else."""

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers.builders import make_texts, save_backbone
from helpers.launching import ONE_THREAD, launch_command, whole_lines
from torch import Tensor

from transformers_tart.cli import main
from transformers_tart.embeddings.views import PRESETS
from transformers_tart.errors import MissingPackageError
from transformers_tart.evaluation import runner
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.plan import Plan, choose_seeds
from transformers_tart.evaluation.records import Record, read_records
from transformers_tart.evaluation.runner import evaluate
from transformers_tart.evaluation.tasks import load_task
from transformers_tart.files import locked


QUICK = ["majority", "tart", "logistic_regression", "nearest_centroid"]


def write_task(path: Path, seed: int = 0, rows: int = 60) -> str:
    texts = dict.fromkeys(make_texts(4 * rows, seed=seed, max_words=9))
    lines = [
        {"text": text, "label": "abc"[i % 3], "split": "train" if i % 2 else "test"} for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:rows]))
    return str(path)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_backbone(tmp_path_factory.mktemp("backbone") / "llama")


@pytest.fixture
def task(tmp_path: Path) -> str:
    return write_task(tmp_path / "made.jsonl")


def stable(records: list[Record]) -> list[tuple]:
    """What of records does not depend on the clock."""
    return sorted((r.key, sorted(r.metrics.items()), r.calibration, r.test_rows, r.error) for r in records)


def test__evaluate__without_psutil__missing_package_error_before_the_work(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'transformers-tart\[evaluation\]'"):
        evaluate(Plan([task], QUICK), Models(backbone), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test__evaluate__plan__a_record_for_each_run(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], QUICK, sizes=[6, 9], seeds=[1, 2])
    assert evaluate(plan, Models(backbone), tmp_path / "out").failed == 0
    records = read_records(tmp_path / "out")
    assert len({record.key for record in records}) == len(records) == 16
    for record in records:
        assert record.error is None
        assert (record.num_classes, record.model, record.device) == (3, "llama", "cpu")
        assert set(record.metrics) >= {"accuracy", "macro_f1", "log_loss", "brier_score", "calibration_error"}
        assert sum(row[0] for row in record.calibration) == record.test_rows
        right = sum(row[2] for row in record.calibration)
        assert right / record.test_rows == pytest.approx(record.metrics["accuracy"])
    views = {record.method: record.views for record in records}
    assert views["tart"] == views["logistic_regression"] == list(PRESETS["causal"]["default"])


def test__evaluate__from_zero_examples__methods_that_need_none(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(METHODS, "tart", lambda context, support: torch.full((30, 3), 1 / 3))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    plan = Plan([task], ["tart", "majority"], seeds=[1, 2], per_class=[0, 1, 2])
    assert evaluate(plan, Models(backbone), tmp_path / "out").failed == 0
    records = read_records(tmp_path / "out")
    assert [(r.k, r.per_class, r.seed, r.method) for r in records[:2]] == [(0, 0, 1, "tart"), (3, 1, 1, "tart")]
    assert len(records) == 1 + 2 * 2 * 2
    assert all(record.cpu_seconds >= 0 for record in records)
    assert caplog.text.count("left out, since they need some: majority.") == 1
    assert evaluate(plan, Models(backbone), tmp_path / "out").failed == 0


def test__plan__zero_shot__once_and_without_examples(task: str) -> None:
    runs = list(Plan([task], ["zero_shot", "majority"], sizes=[6, 9], seeds=[3, 4]).runs([load_task(task)]))
    assert [run.key[1:] for run in runs[:2]] == [(0, 3, "zero_shot"), (6, 3, "majority")]
    assert len(runs) == 1 + 2 * 2


def test__plan__examples_of_each_class__all_of_a_rare_class(task: str) -> None:
    whole = load_task(task)
    kept = [i for i, label in enumerate(whole.train_labels) if label != 1 or i < 6]
    rare = whole._select("train", kept)
    counts = Counter(rare.train_labels)
    assert counts[1] < 4
    runs = list(Plan([task], ["majority"], seeds=[1], per_class=[4, 100]).runs([rare]))
    assert [(run.k, run.per_class) for run in runs] == [(8 + counts[1], 4), (len(kept), 100)]
    drawn = Counter(rare.train_labels[i] for i in rare.draw_support(runs[0].k, 1))
    assert drawn == {0: 4, 1: counts[1], 2: 4}


def test__evaluate__other_views__another_folder(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], ["nearest_centroid"], sizes=[6], seeds=[1])
    evaluate(plan, Models(backbone, views=["mean", "last"]), tmp_path / "out")
    assert [record.views for record in read_records(tmp_path / "out")] == [["mean", "last"]]
    with pytest.raises(ValueError, match=r"holds results of views \['mean', 'last'\], not 'default'"):
        evaluate(plan, Models(backbone), tmp_path / "out")


def test__task_context__embeddings_of_another_method__their_seconds_count_again(backbone: str, task: str) -> None:
    context = TaskContext(load_task(task), Models(backbone))
    support = Support.draw(context.task, 9, seed=1)
    context.embeddings(support)
    assert not context.saved.any()
    context.embeddings(support)
    assert list(context.saved) == list(sum(seconds for _, seconds in context._embedded.values()))
    assert len(context._embedded) == 2  # the tests, and a block of examples
    assert all((seconds > 0).all() for _, seconds in context._embedded.values())


def test__evaluate__again__nothing_is_measured_twice(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan([task], QUICK, sizes=[6], seeds=[1])
    evaluate(plan, Models(backbone), tmp_path / "out")
    content = (tmp_path / "out" / "results.jsonl").read_bytes()
    monkeypatch.setattr(runner, "measure_run", lambda *args: pytest.fail("a finished run was measured again"))
    evaluate(plan, Models(backbone), tmp_path / "out")
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == content


def test__evaluate__half_a_line_left__run_made_again(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], QUICK, sizes=[6], seeds=[1, 2])
    evaluate(plan, Models(backbone), tmp_path / "out")
    expected = stable(read_records(tmp_path / "out"))
    path = tmp_path / "out" / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(read_records(tmp_path / "out")) == len(expected) - 1
    evaluate(plan, Models(backbone), tmp_path / "out")
    assert stable(read_records(tmp_path / "out")) == expected


def test__evaluate__method_fails__noted_and_the_rest_goes_on(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(context: TaskContext, support: Support) -> Tensor:
        raise ArithmeticError("no way")

    def odd(context: TaskContext, support: Support) -> Tensor:
        return torch.full((len(context.test_texts), 3), torch.nan)

    monkeypatch.setitem(METHODS, "fails", fails)
    monkeypatch.setitem(METHODS, "odd", odd)
    plan = Plan([task], ["fails", "odd", "majority"], sizes=[6], seeds=[1])
    assert evaluate(plan, Models(backbone), tmp_path / "out").failed == 2
    errors = {record.method: record.error for record in read_records(tmp_path / "out")}
    assert errors["fails"] == "ArithmeticError: no way"
    assert "not finite" in errors["odd"]
    assert errors["majority"] is None
    monkeypatch.setitem(METHODS, "fails", METHODS["majority"])
    assert evaluate(plan, Models(backbone), tmp_path / "out").failed == 1
    assert {r.method: r.error for r in read_records(tmp_path / "out")}["fails"] is None


def test__evaluate__broken_task_among_others__left_out_and_said(
    backbone: str, task: str, tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.jsonl").write_text("{no json\n")
    evaluate(Plan([str(tmp_path / "broken.jsonl"), task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")
    assert [record.task for record in read_records(tmp_path / "out")] == ["made"]
    assert "broken.jsonl is not JSON" in all_logs.text
    with pytest.raises(ValueError, match="Line 1 of .*broken.jsonl is not JSON"):
        evaluate(Plan([str(tmp_path / "broken.jsonl")], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")


def test__evaluate__support_set_larger_than_the_task__that_run_fails_alone(
    backbone: str, task: str, tmp_path: Path
) -> None:
    assert evaluate(Plan([task], ["majority"], [6, 999], [1]), Models(backbone), tmp_path / "out").failed == 1
    assert {r.k: r.error is None for r in read_records(tmp_path / "out")} == {6: True, 999: False}


def test__evaluate__all_runs_fail__exit_code_of_an_error(
    backbone: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--model", backbone, "--task", task, "--seeds", "1", "--device", "cpu"]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--methods", "prompting", "--k", "6", "9"]) == 1
    assert "All 2 runs have failed, the first with ValueError: llama is no causal" in capsys.readouterr().err
    assert len(read_records(tmp_path / "out")) == 2
    assert main([*command, "--methods", "prompting", "majority", "--k", "6"]) == 0
    assert "1 runs have failed" in capsys.readouterr().err


def test__evaluate__other_model_in_the_folder__refused(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], ["majority"], [6], [1])
    evaluate(plan, Models(backbone), tmp_path / "out")
    other = save_backbone(tmp_path / "gpt2", "gpt2")
    with pytest.raises(ValueError, match=r"holds results of \['llama'\], not of gpt2; choose another folder"):
        evaluate(plan, Models(other), tmp_path / "out")


@pytest.mark.parametrize(
    ("plan", "model", "message"),
    [
        ({"sampling": "natural"}, {}, "sampling 'balanced', not 'natural'"),
        ({"max_test": 5}, {}, "max_test None, not 5"),
        ({}, {"max_length": 7}, "max_length None, not 7"),
        ({}, {"dtype": "bfloat16"}, "dtype 'float32', not 'bfloat16'"),
    ],
)
def test__evaluate__other_settings_in_the_folder__refused(
    backbone: str, task: str, tmp_path: Path, plan: dict, model: dict, message: str
) -> None:
    evaluate(Plan([task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        evaluate(Plan([task], ["majority"], [6], [1], **plan), Models(backbone, **model), tmp_path / "out")


def test__evaluate__task_changed_under_its_name__refused(backbone: str, task: str, tmp_path: Path) -> None:
    evaluate(Plan([task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")
    write_task(Path(task), rows=40)
    with pytest.raises(ValueError, match="made with .*classes, test rows.*choose another folder"):
        evaluate(Plan([task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")


def test__evaluate__labels_corrected_under_its_name__refused(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], ["majority"], [6], [1])
    evaluate(plan, Models(backbone), tmp_path / "out")
    first, *others = Path(task).read_text().splitlines()
    other = next(
        json.loads(line)["label"] for line in others if json.loads(line)["label"] != json.loads(first)["label"]
    )
    Path(task).write_text("\n".join([json.dumps({**json.loads(first), "label": other}), *others]))
    with pytest.raises(ValueError, match="task made with other texts or labels; choose another folder"):
        evaluate(plan, Models(backbone), tmp_path / "out")
    results = tmp_path / "out" / "results.jsonl"
    results.write_text(json.dumps({**json.loads(results.read_text()), "digest": None}) + "\n")
    evaluate(plan, Models(backbone), tmp_path / "out")  # a record of an older version


def test__evaluate__everything_named_twice__measured_once(backbone: str, task: str, tmp_path: Path) -> None:
    spelled = f"{tmp_path}/../{tmp_path.name}/made.jsonl"
    evaluate(Plan([task, spelled], ["majority"] * 2, [6, 6], [1, 1]), Models(backbone), tmp_path / "out")
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 1


def test__evaluate__two_tasks_of_one_name__refused(backbone: str, task: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_task(tmp_path / "other" / "made.jsonl", seed=1)
    with pytest.raises(ValueError, match="both called made"):
        evaluate(Plan([task, other], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")


def test__evaluate__disk_full__error_and_finished_runs_kept(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.write, []

    def full(file: int, data: bytes) -> int:
        if b'"task"' in bytes(data):
            calls.append(data)
            if len(calls) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(Plan([task], QUICK, [6], [1]), Models(backbone), tmp_path / "out")
    assert len(read_records(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ["odd"]}, r"Unknown methods \['odd'\]; choose from tart"),
        ({"methods": []}, "choose from tart"),
        ({"sizes": [1]}, "one k, 0 or 2 and more"),
        ({"per_class": [-1]}, "number of examples of each class, 0 or more"),
        ({"per_class": [2], "sampling": "natural"}, 'sampling is "balanced", not "natural"'),
        ({"seeds": []}, "at least one task, one seed"),
    ],
)
def test__plan__that_makes_no_sense__refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**{"tasks": ["a"], "methods": ["tart"], **fields})


def test__plan__groups__taken_apart_once() -> None:
    names = Plan(["paper", "sst2", "mine.csv"], ["tart"]).task_names
    assert names.count("sst2") == 1
    assert "mine.csv" in names
    assert "paper" not in names


def test__choose_seeds__more_than_the_first_published_one__each_once() -> None:
    assert len(set(choose_seeds(60))) == 60


def test__choose_seeds__published_first() -> None:
    assert choose_seeds(2) == [42, 69]
    assert choose_seeds(7) == [42, 69, 128, 512, 1024, 0, 1]
    with pytest.raises(ValueError, match="must be at least 1"):
        choose_seeds(0)


def arguments(backbone: str, task: str, output: Path) -> list[str]:
    sizes = ["--k", "6", "9", "--seeds", "3", "--device", "cpu", "--dtype", "float32", "--output", str(output)]
    return ["evaluate", "--model", backbone, "--task", task, "--methods", *QUICK, *sizes]


@pytest.mark.slow
def test__evaluate_command__killed__same_rows_in_the_end(backbone: str, task: str, tmp_path: Path) -> None:
    assert main(arguments(backbone, task, tmp_path / "whole")) == 0
    expected = stable(read_records(tmp_path / "whole"))
    command = [sys.executable, "-m", "transformers_tart", *arguments(backbone, task, tmp_path / "killed")]
    results = tmp_path / "killed" / "results.jsonl"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    while process.poll() is None and (not results.exists() or results.read_bytes().count(b"\n") < 9):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(command[3:]) == 0
    assert stable(read_records(tmp_path / "killed")) == expected
    keys = [(r["task"], r["k"], r["seed"], r["method"]) for r in map(json.loads, results.read_text().splitlines())]
    assert len(keys) == len(set(keys))


def count_lines(folder: Path) -> dict[str, int]:
    return {name: len(lines) for name, lines in whole_lines(folder).items()}


@pytest.mark.slow
@pytest.mark.exhaustive  # what resumes with other numbers of processes covers it
def test__evaluate_command__two_processes__same_rows_as_one(backbone: str, task: str, tmp_path: Path) -> None:
    assert main(arguments(backbone, task, tmp_path / "one")) == 0
    command = launch_command(arguments(backbone, task, tmp_path / "two"), 2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    assert stable(read_records(tmp_path / "two")) == stable(read_records(tmp_path / "one"))
    assert sorted(count_lines(tmp_path / "two").items()) == [("results.0.jsonl", 16), ("results.1.jsonl", 8)]


@pytest.mark.slow
def test__evaluate_command__one_then_two_then_one_process__same_rows_none_twice(
    backbone: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(backbone, task, tmp_path / "one")) == 0
    command, limit = arguments(backbone, task, tmp_path / "out"), ["--max-minutes", "0.0001"]
    assert main([*command, *limit]) == 0
    assert capsys.readouterr().err.endswith("23 of 24 runs left; the same command goes on\n")
    launch = launch_command([*command, *limit], 2)
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("21 of 24 runs left; the same command goes on\n") == 1
    assert main(command) == 0
    assert "left;" not in capsys.readouterr().err
    assert stable(read_records(tmp_path / "out")) == stable(read_records(tmp_path / "one"))
    assert count_lines(tmp_path / "out") == {"results.0.jsonl": 1, "results.1.jsonl": 1, "results.jsonl": 22}


@pytest.mark.slow
def test__evaluate_command__two_machines_with_their_own_folders__rows_shared_and_resumed(
    backbone: str, task: str, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    assert main(arguments(backbone, task, tmp_path / "one")) == 0
    assert main([*arguments(backbone, task, folders[1]), "--max-minutes", "0.0001"]) == 0  # known to the first machine
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = ["--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port"]
        place.append(str(free.getsockname()[1]))
    running = []
    for rank, folder in enumerate(folders):
        command = launch_command(arguments(backbone, task, folder), 2, *place, "--machine_rank", str(rank))
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ONE_THREAD))
    for process in running:
        assert "of 24 runs left" not in process.communicate(timeout=300)[1]
        assert process.returncode == 0
    assert all((folder / "settings.json").exists() for folder in folders)
    assert [list(count_lines(folder)) for folder in folders] == [
        ["results.0.jsonl"],
        ["results.1.jsonl", "results.jsonl"],
    ]
    both = [record for folder in folders for record in read_records(folder)]
    assert stable(both) == stable(read_records(tmp_path / "one"))


def test__evaluate__time_over__one_run_a_call_and_the_rest_later(backbone: str, task: str, tmp_path: Path) -> None:
    plan = Plan([task], ["majority"], [6], [1, 2, 3])
    found = [evaluate(plan, Models(backbone), tmp_path / "out", max_minutes=1e-9) for _ in range(4)]
    assert found == [(0, 2, 3), (0, 1, 3), (0, 0, 3), (0, 0, 3)]
    assert count_lines(tmp_path / "out") == {"results.jsonl": 3}


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test__evaluate__no_time__refused(backbone: str, task: str, tmp_path: Path, minutes: float) -> None:
    with pytest.raises(ValueError, match="max_minutes is .*; it must be above 0"):
        evaluate(Plan([task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out", minutes)


def test__evaluate__failed_runs__tried_again_after_all_others(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "fails", lambda context, support: 1 / 0)
        plan = Plan([task], ["fails", "majority"], [6], [1])
        found = [evaluate(plan, Models(backbone), tmp_path / "out", max_minutes=1e-9) for _ in range(3)]
    assert found == [(1, 1, 2), (0, 1, 2), (1, 0, 2)]


def test__evaluate__file_of_another_process__refused(backbone: str, task: str, tmp_path: Path) -> None:
    plan, other = Plan([task], ["majority"], [6], [1]), tmp_path / "results.1.jsonl"
    other.touch()
    with locked(other), pytest.raises(OSError, match="Another command writes results to"):
        evaluate(plan, Models(backbone), tmp_path)
    assert evaluate(plan, Models(backbone), tmp_path).failed == 0


def test__evaluate__processes_of_other_tasks__refused(
    backbone: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(facts: list) -> list:
        return facts + [{**each, "task made": None, "dtype": "bfloat16"} for each in facts if isinstance(each, dict)]

    monkeypatch.setattr(runner, "gather_object", gather)
    with pytest.raises(
        ValueError, match="Processes differ in dtype 'float32' and 'bfloat16' and task made '3 classes"
    ):
        evaluate(Plan([task], ["majority"], [6], [1]), Models(backbone), tmp_path / "out")
