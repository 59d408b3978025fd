"""Commands that are killed at random moments, at the start of a resume too: nothing is lost, same bytes in the end."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from helpers.caches import is_complete, make_cache, make_row
from torch import Tensor


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SCRIPT = Path(__file__).parents[1] / "helpers" / "killing.py"
FEW_AND_MANY = [
    pytest.param(3, id="few"),
    pytest.param(30, id="many", marks=[pytest.mark.exhaustive, pytest.mark.slow]),
]


def kill_and_resume(arguments: list[object], output: Path, kills: int, seed: int, tear: bool = True) -> dict:
    """Run a command to its end, killed some times on the way."""
    argv = [str(part) for part in arguments]
    facts = {"argv": argv, "output": str(output), "kills": kills, "seed": seed, "tear": tear}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps({**facts, "tear": tear})],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples, inputs with bad rows, and the outputs of runs that nobody killed."""
    path = tmp_path_factory.mktemp("kills")
    examples = [
        {"text": f"it is {'good' if i % 2 else 'bad'} {i}", "label": 'a "b", c' if i % 2 else "d"} for i in range(12)
    ]
    inputs = [{"text": f"text {i * 7919 % 997}" + " word" * (i % 7) if i % 50 else None} for i in range(1500)]
    for name, rows in (("train.jsonl", examples), ("in.jsonl", inputs)):
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def classify(folder: Path, output: Path) -> list[object]:
    files = ["--examples", folder / "train.jsonl", "--input", folder / "in.jsonl", "--output", output]
    return ["classify", "--model", "mini", "--device", "cpu", "--batch-size", 4, *files]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [pytest.param("jsonl", marks=pytest.mark.exhaustive), "csv"])
@pytest.mark.parametrize("kills", FEW_AND_MANY)
def test__classify__killed_and_resumed__nothing_lost_and_same_bytes(
    folder: Path, tmp_path: Path, ending: str, kills: int
) -> None:
    whole, output = folder / f"whole.{ending}", tmp_path / f"out.{ending}"
    if not whole.exists():
        assert kill_and_resume(classify(folder, whole), whole, 0, 0)["code"] == 0
    found = kill_and_resume(classify(folder, output), output, kills, seed=kills)
    assert (found["code"], found["lost"]) == (0, 0)
    assert found["killed"] >= kills // 2
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.exhaustive
@pytest.mark.slow
def test__evaluate__killed_and_resumed__every_cell_once_with_the_same_metrics(folder: Path, tmp_path: Path) -> None:
    texts = [{"text": f"it is {'good' if i % 2 else 'bad'} {i}", "label": "ab"[i % 2]} for i in range(80)]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))

    def measure(name: str, kills: int) -> dict[tuple, dict]:
        plan = ["--methods", "tart", "logistic_regression", "majority", "--k", 4, 8, "--seeds", 5]
        arguments = ["evaluate", "--model", "mini", "--task", tmp_path / "made.jsonl", *plan]
        output = tmp_path / name / "results.jsonl"
        found = kill_and_resume([*arguments, "--output", output.parent], output, kills, seed=4)
        assert (found["code"], found["lost"], found["rows"]) == (0, 0, 30)
        records = [json.loads(line) for line in output.read_text().splitlines()]
        return {(r["method"], r["k"], r["seed"]): r["metrics"] for r in records}

    whole, resumed = measure("whole", 0), measure("resumed", 15)
    assert resumed.keys() == whole.keys()
    assert all(resumed[key] == pytest.approx(whole[key], abs=1e-5) for key in whole)


@pytest.mark.exhaustive
@pytest.mark.slow
def test__train_reasoner__killed_and_resumed__same_weights(tmp_path: Path) -> None:
    def train(name: str, kills: int) -> bytes:
        output = tmp_path / name
        arguments = ["train-reasoner", "--preset", "paper-small", "--max-steps", 12, "--no-validation", "--resume"]
        record = output / "training.json"
        found = kill_and_resume([*arguments, "--output", output], record, kills, seed=5, tear=False)
        assert found["code"] == 0
        return (output / "model.safetensors").read_bytes()

    assert train("resumed", 10) == train("whole", 0)


def write_until_killed(folder: Path, writer: int, log: str) -> None:
    cache = make_cache(folder)
    with open(log, "ab", buffering=0) as file:
        for i in range(writer, 4000, 4):
            cache.put([cache.key([i])], make_row(i, 200))
            file.write(f"{i}\n".encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounds",
    [pytest.param(3, id="few"), pytest.param(20, id="many", marks=[pytest.mark.exhaustive, pytest.mark.slow])],
)
def test__cache__four_writers_killed__keeps_all_that_was_written(tmp_path: Path, rounds: int) -> None:
    rng, context, cache_folder = random.Random(rounds), multiprocessing.get_context("fork"), tmp_path / "cache"
    make_cache(cache_folder)
    for turn in range(rounds):
        logs = [tmp_path / f"{turn}.{writer}.log" for writer in range(4)]
        writers: list[BaseProcess] = [
            context.Process(target=write_until_killed, args=(cache_folder, i, str(log))) for i, log in enumerate(logs)
        ]
        for writer in writers:
            writer.start()
        for writer in rng.sample(writers, 4):
            time.sleep(rng.uniform(0, 0.5))
            os.kill(writer.pid or 0, signal.SIGKILL)
            writer.join()
        cache = make_cache(cache_folder)
        written = [int(i) for log in logs if log.exists() for i in log.read_text().split("\n")[:-1]]
        rows = cache.get([cache.key([i]) for i in written])
        assert all(row is not None and row.equal(make_row(i, 200)[0]) for i, row in zip(written, rows, strict=True))
    cache.put([cache.key([i]) for i in range(10)], make_rows(10))
    assert is_complete(cache, 10, 200)


def make_rows(count: int) -> Tensor:
    return torch.cat([make_row(i, 200) for i in range(count)])
