"""Records of measured results."""

import random
from pathlib import Path

from transformers_tart.evaluation.records import Record, append_record


BINS = [[0, 0.0, 0]] * 10 + [[4, 2.2, 3]] * 5
DONE = Record("sms", 2, 16, 0, "tart", "org/model", {"accuracy": 0.75}, BINS, 1.5, 800.0, "cpu", 20)


def make_record(task: str = "a", k: int = 8, seed: int = 0, method: str = "tart", accuracy: float = 0.5) -> Record:
    metrics = {"accuracy": accuracy, "log_loss": 1 - accuracy}
    return Record(task, 2, k, seed, method, "org/model", metrics, [], 2.0 * k, 100.0 + k, "cpu", 50)


def draw(seeds: int = 4, tasks: str = "abc", sizes: tuple[int, ...] = (8, 16)) -> list[Record]:
    rng = random.Random(0)
    return [
        make_record(task, k, seed, method, round(0.5 + 0.1 * i + 0.01 * k + 0.1 * rng.random(), 2))
        for task in tasks
        for k in sizes
        for seed in range(seeds)
        for i, method in enumerate(["probe", "tart"])
    ]


def write_results(folder: Path, records: list[Record]) -> str:
    folder.mkdir()
    for record in records:
        append_record(folder / "results.jsonl", record)
    return str(folder)
