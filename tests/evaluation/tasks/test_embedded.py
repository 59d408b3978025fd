"""`evaluate-reasoner`: support sets are balanced and nested, the numbers are those of the methods."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import draw_task, shared_reasoner
from safetensors.torch import save_file

from transformers_tart.cli import main
from transformers_tart.errors import CorruptFileError
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.metrics import accuracy
from transformers_tart.evaluation.report.statistics import Estimate, estimate
from transformers_tart.evaluation.tasks.embedded import (
    EmbeddedTask,
    ReasonerPredictor,
    choose_sizes,
    format_table,
    measure_task,
)


CALLS: list[tuple] = []


def make_task(classes: int = 2, train_rows: int = 60, layers: int | None = None) -> EmbeddedTask:
    support, labels, query, truth = (tensor[0] for tensor in draw_task(train_rows, 40, classes=classes, gap=0.6))
    rows = torch.cat([support, query])
    if layers is not None:
        rows = torch.stack([(i + 1) * rows + i for i in range(layers)], dim=1)
    return EmbeddedTask("made", rows, torch.cat([labels, truth]), train_rows)


def save(task: EmbeddedTask, path: Path, **metadata: str) -> str:
    save_file({"embeddings": task.embeddings.half(), "labels": task.labels}, path, metadata=metadata or None)
    return str(path)


@pytest.mark.parametrize("classes", [2, 5])
def test__draw_support__growing_k__balanced_nested_and_from_train_rows(classes: int) -> None:
    task = make_task(classes)
    drawn = [task.draw_support(k, seed=3) for k in (10, 20, 60)]
    for smaller, larger in zip(drawn, drawn[1:], strict=False):
        assert torch.equal(larger[: len(smaller)], smaller)
    for chosen in drawn:
        counts = task.labels[chosen].bincount(minlength=classes)
        assert counts.max() - counts.min() <= 1
        assert len(chosen.unique()) == len(chosen)
        assert chosen.max() < task.train_rows
    assert not torch.equal(task.draw_support(20, seed=4), drawn[1])


def test__draw_support__rare_class__all_of_it() -> None:
    task = make_task()
    labels = task.labels.clone()
    labels[: task.train_rows] = 0
    labels[:3] = 1
    rare = EmbeddedTask("rare", task.embeddings, labels, task.train_rows)
    assert rare.labels[rare.draw_support(20, seed=0)].bincount().tolist() == [17, 3]


def test__choose_sizes__by_classes__capped_at_the_rows() -> None:
    assert list(choose_sizes(make_task(2), [16, 1024], [4])) == [16, 60]
    assert list(choose_sizes(make_task(5), [16, 1024], [4, 8, 100])) == [20, 40, 60]
    assert list(choose_sizes(make_task(5), [4, 16, 1024])) == [16, 60]


def test__choose_sizes__examples_of_each_class_alone__all_of_a_rare_class() -> None:
    task = make_task()
    labels = task.labels.clone()
    labels[: task.train_rows] = 0
    labels[:3] = 1
    rare = EmbeddedTask("rare", task.embeddings, labels, task.train_rows)
    assert choose_sizes(rare, None, [4, 0, 1, 100, 200]) == {0: 0, 2: 1, 7: 4, 60: 100}
    assert rare.labels[rare.draw_support(7, seed=0)].bincount().tolist() == [4, 3]


@pytest.mark.parametrize("layers", [None, 3])
def test__measure_task__reasoner__what_it_says_itself(layers: int | None) -> None:
    task, reasoner = make_task(3, layers=layers), shared_reasoner()
    (found,) = measure_task(task, {"reasoner": ReasonerPredictor(reasoner)}, [30], [0])
    chosen = task.draw_support(30, 0)
    plain = make_task(3)
    support, query = plain.embeddings[chosen], plain.embeddings[plain.train_rows :]
    with torch.no_grad():
        logits = reasoner(support[None], task.labels[chosen][None], query[None]).logits[0]
    # shifted and scaled copies of one layer say what the layer says
    assert found.metrics["accuracy"] == pytest.approx(accuracy(logits, task.labels[task.train_rows :]), abs=0.051)
    assert found.metrics["accuracy"] > 0.5
    assert (found.k, found.num_classes, found.seed) == (30, 3, 0)


class Recorder(ReasonerPredictor):
    """A reasoner predictor that keeps what it is given."""

    def read(self, *given: Any) -> torch.Tensor:
        CALLS.append(given)
        return torch.full((len(given[2][0]), given[3]), 1 / given[3], dtype=torch.float64)


def test__measure_task__views_and_hints__given_to_reasoners_and_joined_for_others(tmp_path: Path) -> None:
    task = make_task(3)
    second, hints = torch.randn(100, 2, 5), torch.randn(100, 2, 4)  # one class more than there are labels
    tensors = {"embeddings.0": task.embeddings, "embeddings.1": second, "hints": hints, "labels": task.labels}
    save_file(tensors, tmp_path / "views.safetensors", metadata={"train_rows": "60"})
    loaded = EmbeddedTask.load(tmp_path / "views.safetensors")
    assert loaded.num_classes == 4
    assert [view.shape for view in loaded.views] == [(100, 1, task.embeddings.shape[1]), (100, 2, 5)]
    widths: list[int] = []

    def probe(support: torch.Tensor, labels: torch.Tensor, query: torch.Tensor, classes: int) -> torch.Tensor:
        widths.append(support.shape[1])
        return torch.full((len(query), classes), 1 / classes)

    CALLS.clear()
    methods = {"reads": Recorder(shared_reasoner()), "blind": Recorder(shared_reasoner(), False), "probe": probe}
    found = list(measure_task(loaded, methods, choose_sizes(loaded, None, [0, 4]), [0, 1]))
    assert [(m.method, m.k, m.per_class) for m in found[:2]] == [("reads", 0, 0), ("reads", 12, 4)]
    assert len(found) == 1 + 2 * 3
    assert widths == [task.embeddings.shape[1] + 10] * 2
    support, labels, query, classes, given = CALLS[1]
    chosen = loaded.draw_support(12, 0)
    assert torch.equal(given[0], hints[chosen])
    assert torch.equal(given[1], hints[60:])
    assert torch.equal(labels, task.labels[chosen])
    torch.testing.assert_close(support[1].square().sum(1).mean(), torch.tensor(2.0))  # each layer has 1
    table = format_table(found, "accuracy").splitlines()
    assert table[2].endswith("| – | – |")
    assert table[-2].startswith("| **0 of each class** |")


def test__estimate__five_values__students_t() -> None:
    assert estimate([1.0, 2.0, 3.0, 4.0, 5.0]) == Estimate(3.0, pytest.approx(1.963, abs=1e-3))
    assert estimate([2.0]) == Estimate(2.0, None)


def test__evaluate_reasoner__files__tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [save(make_task(2), tmp_path / "two.safetensors", train_rows="60")]
    files.append(save(make_task(3), tmp_path / "three.safetensors", train_rows="60"))
    output = tmp_path / "report.json"
    options = ["--k", "16", "--per-class", "4", "--seeds", "2", "--baselines", "logistic_regression", "kernel_ridge"]
    assert main(["evaluate-reasoner", *files, *options, "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| accuracy | k | reasoner | logistic_regression | kernel_ridge |" in lines
    assert sum(line.startswith("| two | 16 |") for line in lines) == 4
    assert sum(line.startswith("| three | 12 |") for line in lines) == 4
    report = json.loads(output.read_text())
    assert len(report["measurements"]) == 2 * 2 * 3
    first = [
        m["metrics"]["accuracy"] for m in report["measurements"] if (m["task"], m["method"]) == ("two", "reasoner")
    ]
    line = next(line for line in lines if line.startswith("| two | 16 |"))
    assert float(line.split("|")[3].split("±")[0]) == pytest.approx(100 * sum(first) / 2, abs=0.06)


@pytest.mark.parametrize(
    "command",
    [["--k", "1"], ["--seeds", "0"], ["--per-class", "-1"], ["--k", "8", "--per-class", "0"], ["--train-rows", "100"]],
)
def test__evaluate_reasoner__impossible_sizes__said(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(make_task(), tmp_path / "made.safetensors", train_rows="60")
    assert main(["evaluate-reasoner", file, *command]) == 1
    assert capsys.readouterr().out == ""


def test__evaluate_reasoner__unknown_baseline__error_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate-reasoner", "absent.safetensors", "--baselines", "guess"])
    assert stop.value.code == 2
    assert f"there is no 'guess'; choose from {', '.join(BASELINES)}" in capsys.readouterr().err


def test__load__bad_files__say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no train_rows in its metadata"):
        EmbeddedTask.load(save(make_task(), tmp_path / "silent.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage!")
    with pytest.raises(CorruptFileError, match="no readable file of embeddings and labels"):
        EmbeddedTask.load(tmp_path / "broken.safetensors")
    save_file({"embeddings": torch.zeros(5, 2), "labels": torch.zeros(4, dtype=torch.int64)}, tmp_path / "odd")
    with pytest.raises(ValueError, match=r"embeddings \(5, 2\) and labels \(4,\)"):
        EmbeddedTask.load(tmp_path / "odd", train_rows=3)
    tensors = {"embeddings": torch.zeros(5, 2), "labels": torch.arange(5), "hints": torch.zeros(5, 1, 4)}
    save_file(tensors, tmp_path / "few")
    with pytest.raises(ValueError, match=r"hints \(5, 1, 4\) for 5 rows and 5 classes"):
        EmbeddedTask.load(tmp_path / "few", train_rows=3)
