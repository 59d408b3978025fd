"""Classify a table with Ray Data; a fitted task is pickled and sent to the workers.

python batch_ray.py --task me/tart-sms-spam --input messages.csv --output labeled --workers 4
"""

import argparse
from typing import Any

import numpy as np
import ray
from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)


class Classifier:
    """A worker, which holds the task from one batch to the next."""

    def __init__(self, classify: Any) -> None:
        self.classify = classify

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = self.classify([str(text) for text in batch["text"]], batch_size=64)
        labels, scores = ([each[name] for each in answers] for name in ("label", "score"))
        return {**batch, "label": np.array(labels), "score": np.array(scores)}


def run(classify: Any, input_path: str, output_path: str, workers: int, gpus: float = 0) -> None:
    table = ray.data.read_csv(input_path)
    options = {"batch_size": 512, "num_gpus": gpus or None, "compute": ray.data.ActorPoolStrategy(size=workers)}
    table.map_batches(Classifier, fn_constructor_args=(classify,), **options).write_parquet(output_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--task", "--input", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    args = parser.parse_args()
    run(pipeline("tart-classification", model=args.task), args.input, args.output, args.workers, args.gpus)
