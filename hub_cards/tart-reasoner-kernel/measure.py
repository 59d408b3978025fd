"""Measures the pipeline on labelled texts, beside baselines on the same embeddings.

    python measure.py --backbone FOLDER_OR_ID --data FOLDER sms_spam:64 ag_news:128 trec6:128

A data set is a file `<name>.jsonl.gz` of rows {"text", "label", "split"}; k examples, balanced over the classes, are
drawn from its train rows, and all its test rows are classified. Mean over the seeds.
"""

import argparse
import gzip
import json
from pathlib import Path
from statistics import mean

import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score, log_loss
from transformers import pipeline

import transformers_tart  # noqa: F401  registers the pipeline
from transformers_tart import TartClassificationPipeline
from transformers_tart.embeddings import embed


Row = dict[str, str]


def draw_examples(rows: list[Row], k: int, seed: int) -> list[Row]:
    """k train rows, as many of each class as of any other, or one more."""
    train = [row for row in rows if row["split"] == "train"]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    labels = sorted({row["label"] for row in rows})
    share, rest = divmod(k, len(labels))
    chosen = []
    for i, label in enumerate(labels):
        chosen += [train[j] for j in order if train[j]["label"] == label][: share + (i < rest)]
    return [{"text": row["text"], "label": row["label"]} for row in chosen]


def measure_once(classify: TartClassificationPipeline, rows: list[Row], k: int, seed: int) -> dict[str, float]:
    """Accuracy and log loss of one support set."""
    examples, test = draw_examples(rows, k, seed), [row for row in rows if row["split"] == "test"]
    labels, true = sorted({row["label"] for row in rows}), [row["label"] for row in test]
    answers = classify([row["text"] for row in test], examples=examples, top_k=None)
    scores = [{answer["label"]: answer["score"] for answer in answer_list} for answer_list in answers]
    probability = torch.tensor([[score[label] for label in labels] for score in scores], dtype=torch.float64)
    support, query, numbers = embed(
        classify.model.backbone,
        classify.tokenizer,
        [row["text"] for row in examples],
        [labels.index(row["label"]) for row in examples],
        [row["text"] for row in test],
        layers="all",
    )
    logistic = LogisticRegression(max_iter=2000).fit(support, numbers)
    # as one layer: the layers together have a mean squared norm of 1
    scale = support.square().sum(1).mean().sqrt()
    ridge = RidgeClassifier(alpha=1.0).fit(support / scale, numbers)
    return {
        "accuracy": accuracy_score(true, [answer_list[0]["label"] for answer_list in answers]),
        "log_loss": log_loss(true, probability / probability.sum(1, keepdim=True), labels=labels),
        "logistic_accuracy": accuracy_score(true, [labels[i] for i in logistic.predict(query)]),
        "logistic_log_loss": log_loss(true, logistic.predict_proba(query), labels=labels),
        "ridge_accuracy": accuracy_score(true, [labels[i] for i in ridge.predict(query / scale)]),
    }


def measure(backbone: str, data: Path, name: str, k: int, seeds: int) -> dict[str, float]:
    """Means over the seeds."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    classify = pipeline("tart-classification", model=backbone)
    results = [measure_once(classify, rows, k, seed) for seed in range(seeds)]
    return {metric: mean(result[metric] for result in results) for metric in results[0]}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="NAME:K")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| data set | k | TART | log loss | logistic regression | log loss | ridge |\n|---|---|---|---|---|---|---|")
    for item in args.sets:
        name, k = item.split(":")
        r = measure(args.backbone, args.data, name, int(k), args.seeds)
        cells = [
            f"{100 * r['accuracy']:.1f}",
            f"{r['log_loss']:.3f}",
            f"{100 * r['logistic_accuracy']:.1f}",
            f"{r['logistic_log_loss']:.3f}",
            f"{100 * r['ridge_accuracy']:.1f}",
        ]
        print(f"| {name} | {k} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
