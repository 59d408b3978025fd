"""`evaluate` with one or two processes, killed at random moments and resumed: each run once, with the same metrics."""

import json
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from helpers.builders import make_texts, save_backbone
from helpers.launching import ONE_THREAD, launch_command, run_and_kill, whole_lines

from transformers_tart.cli import main


METHODS = ["majority", "tart", "logistic_regression", "nearest_centroid"]
# of the clock and of what a process has loaded before: a method that needs no model has the views of one loaded then
CHANGING = {"seconds", "cpu_seconds", "memory_mb", "shared_seconds", "views"}


def write_task(path: Path, seed: int) -> str:
    texts = list(dict.fromkeys(make_texts(400, seed=seed, max_words=9)))[:120]
    rows = [
        {"text": text, "label": "abc"[i % 3], "split": "train" if i % 2 else "test"} for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder: Path) -> list[str]:
    """The records of all files, in a fixed order, without what changes from time to time."""
    records = [json.loads(line) for lines in whole_lines(folder).values() for line in lines]
    return sorted(
        json.dumps({name: record[name] for name in record.keys() - CHANGING}, sort_keys=True) for record in records
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills", [pytest.param(2, id="few"), pytest.param(20, id="many", marks=pytest.mark.exhaustive)]
)
def test__evaluate__processes_killed_and_resumed__each_run_once_to_the_last_bit(tmp_path: Path, kills: int) -> None:
    rng, output = random.Random(kills), tmp_path / "killed"
    tasks = [write_task(tmp_path / f"{name}.jsonl", seed) for seed, name in enumerate(("first", "second"))]
    plan = ["--task", *tasks, "--methods", *METHODS, "--k", "6", "9", "--seeds", "5"]
    model = ["--model", save_backbone(tmp_path / "llama"), "--device", "cpu", "--dtype", "float32"]
    arguments = ["evaluate", *model, *plan, "--output"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    alive: Counter = Counter()
    for _ in range(kills):
        kept, processes = whole_lines(output), rng.choice([1, 2, 2])
        victim, was_alive = run_and_kill(launch_command([*arguments, str(output)], processes), output, rng)
        alive[victim, processes] += was_alive
        now = whole_lines(output)
        assert all(now[name][: len(lines)] == lines for name, lines in kept.items())
    missing = 80 - len(read(output))
    done = subprocess.run(
        launch_command([*arguments, str(output)], 2), capture_output=True, text=True, timeout=300, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"kills {dict(alive)}, {missing} runs left for the last command")
    assert alive.total() >= kills // 2
    assert read(output) == read(tmp_path / "whole")
    assert len(read(output)) == 80
