"""Classify a dataset with `datasets`, in several processes; a second run with the same task reads the cache.

python batch_datasets.py --task me/tart-sms-spam --input messages.csv --output labeled.parquet --processes 4
"""

import argparse

from datasets import Dataset, load_dataset
from transformers import pipeline

from transformers_tart import TartClassificationPipeline


def label(batch: dict[str, list], classify: TartClassificationPipeline) -> dict[str, list]:
    answers = classify(batch["text"], batch_size=64)
    return {name: [each[name] for each in answers] for name in ("label", "score")}


def run(dataset: Dataset, classify: TartClassificationPipeline, processes: int) -> Dataset:
    options = {"batched": True, "batch_size": 512, "num_proc": processes}
    return dataset.map(label, fn_kwargs={"classify": classify}, **options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--task", "--input", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--processes", type=int, default=4)
    args = parser.parse_args()
    rows = load_dataset("csv", data_files=args.input, split="train")
    task = pipeline("tart-classification", model=args.task, device="cpu")
    run(rows, task, args.processes).to_parquet(args.output)
