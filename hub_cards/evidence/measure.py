"""Measure the tables of real models, each by one command that goes on where it was interrupted.

    python measure.py smollm2-135m --models FOLDER --data DATA

FOLDER holds the models by name, and DATA the sets: `text/NAME.jsonl.gz` with text, label and split, `mnist_small.npz`
and `fsdd.npz`. The rows go to `TABLE/results.jsonl` beside this file, where `transformers-tart report` reads them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from transformers_tart.evaluation.plan import choose_seeds
from transformers_tart.evaluation.records import Key
from transformers_tart.files import write_whole


BINARY = ("sst2", "cr", "rotten_tomatoes", "sms_spam", "imdb", "civil_toxic")
SETS = (*BINARY, "ag_news", "trec6", "emotion")
FOUR = ("sst2", "cr", "ag_news", "trec6")
PROBES = ("logistic_regression", "logistic_regression_cv")
COMPOSED = ("tart", "tart_without_hints", *PROBES)
FINE_TUNING = ("fine_tune_head", "fine_tune_last", "lora", "fine_tune")


@dataclass(frozen=True)
class Stage:
    """Runs of a table: every method on every support set."""

    methods: tuple[str, ...]
    sets: tuple[str, ...] = SETS
    sizes: tuple[int, ...] = (16, 64, 256)
    seeds: int = 3

    @property
    def runs(self) -> set[Key]:
        """Task, k, seed and method of every run."""
        return set(product(self.sets, self.sizes, choose_seeds(self.seeds), self.methods))


@dataclass(frozen=True)
class Table:
    """A folder of results of a model, all with the same settings."""

    model: str
    stages: tuple[Stage, ...]
    options: dict[str, str] = field(default_factory=lambda: {"max-length": "64", "max-test": "300"})

    @property
    def runs(self) -> set[Key]:
        """Task, k, seed and method of every run."""
        return set().union(*(stage.runs for stage in self.stages))


def of_language_model(model: str, *more: Stage) -> Table:
    """Return the table of a causal language model."""
    stages = (
        Stage((*COMPOSED, "tfidf", "majority")),
        Stage((*COMPOSED, "tfidf", "majority"), ("banking77",), (256,)),
        Stage(("prompting", "prompting_calibrated"), SETS, (64,), 1),
        Stage(("prompting", "prompting_calibrated"), SETS, (16, 256), 1),
        *more,
        Stage(("tart_vanilla", "tart_loo"), FOUR, (16,), 1),
        Stage(("tart_vanilla", "tart_loo"), FOUR, (64,), 1),
        Stage(("tart_vanilla",), FOUR, (256,), 1),
    )
    return Table(model, stages, {"max-length": "64", "max-test": "300", "max-prompt": "2048"})


def of_encoder(model: str) -> Table:
    """Return the table of a sentence encoder."""
    methods = (*COMPOSED, "nearest_centroid", "tfidf", "majority")
    stages = (
        Stage(methods),
        Stage(methods, ("banking77",), (256,)),
        Stage(("setfit",), SETS, (16, 64), 1),
        Stage(("tart", "setfit"), ("sst2", "cr"), (16, 32), 1),  # 8 and 16 of each class
        Stage(("tart", "setfit"), ("ag_news",), (32, 64), 1),
        Stage(("tart", "setfit"), ("trec6",), (48, 96), 1),
        Stage(("setfit",), SETS, (16, 64), 3),
        Stage(("setfit",), FOUR, (256,), 1),
    )
    return Table(model, stages)


def of_media(model: str, name: str) -> Table:
    """Return the table of a model of images or recordings."""
    return Table(model, (Stage(("tart", *PROBES, "nearest_centroid"), (name,)),), {"max-test": "300"})


TABLES = {
    "smollm2-135m": of_language_model(
        "smollm2-135m", Stage(FINE_TUNING, FOUR, (64,), 2), Stage(FINE_TUNING, FOUR, (256,), 2)
    ),
    "gemma3-270m": of_language_model("gemma3-270m"),
    "minilm": of_encoder("minilm"),
    "multilingual-e5-small": of_encoder("multilingual-e5-small"),
    **{model: of_media(model, "mnist") for model in ("efficientnet-lite0", "dinov2-small")},
    **{model: of_media(model, "fsdd") for model in ("whisper-tiny-en", "whisper-base")},
}


def find_set(data: Path, name: str, work: Path) -> Path:
    """Return the file of a set of texts, or write images or recordings into a folder for each class."""
    texts = data / "text" / f"{name}.jsonl.gz"
    if texts.exists():
        return texts
    folder = work / name
    if not folder.exists():
        found = np.load(next(data.glob(f"{name}*.npz")))
        for i, (split, label) in enumerate(zip(found["split"], found["label"], strict=True)):
            target = folder / str(split) / str(label)
            target.mkdir(parents=True, exist_ok=True)
            if "image" in found:
                Image.fromarray(found["image"][i]).save(target / f"{i:05}.png")
            else:
                write_wave(target / f"{i:05}.wav", found["audio"][i, : found["length"][i]], int(found["rate"]))
    return folder


def write_wave(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples (n,) int16 as a file of one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def commands(args: argparse.Namespace, work: Path) -> Iterator[list[str]]:
    """Yield the command of each stage of a table."""
    table = TABLES[args.table]
    fixed = [text for name, value in table.options.items() for text in (f"--{name}", value)]
    for stage in table.stages[slice(*args.stages)]:
        sets = [str(find_set(args.data, name, work)) for name in stage.sets]
        yield [
            *(sys.executable, "-m", "transformers_tart", "evaluate", "--model", str(args.models / table.model)),
            *("--task", *sets, "--methods", *stage.methods, "--k", *map(str, stage.sizes)),
            *("--seeds", str(stage.seeds), *fixed, "--output", str(args.output / args.table)),
        ]


def shorten(path: Path) -> None:
    """Round the figures of records, and leave out what no table needs."""
    rows = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        row |= {"seconds": round(row["seconds"], 2), "memory_mb": round(row["memory_mb"]), "wrong": None}
        row["cpu_seconds"] = round(row["cpu_seconds"], 2)
        row["metrics"] = {name: round(value, 5) for name, value in row["metrics"].items()}
        row["calibration"] = [[round(value, 2) for value in bin_] for bin_ in row["calibration"]]
        rows.append(json.dumps(row) + "\n")
    write_whole(path, "".join(rows))


def main() -> None:
    """Run the stages of a table that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--stages", type=int, nargs=2, default=(0, None), help="first, and the one after the last")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.max_minutes
    with tempfile.TemporaryDirectory() as work:
        for command in commands(args, Path(work)):
            left = (end - time.monotonic()) / 60
            if left <= 0:
                break
            subprocess.run(command + (["--max-minutes", f"{left:.1f}"] if left < float("inf") else []), check=True)
            shorten(args.output / args.table / "results.jsonl")


if __name__ == "__main__":
    main()
