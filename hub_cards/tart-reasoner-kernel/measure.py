"""Measures TART on labelled texts, beside baselines on the same embeddings.

    python measure.py --backbone mini --data FOLDER sms_spam:64 ag_news:128 trec6:128

A data set is a file `<name>.jsonl.gz` of rows {"text", "label", "split"}; k examples, balanced over the classes, are
drawn from its train rows, and all its test rows are classified. Mean over the seeds.
"""

import argparse
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor
from transformers import AutoTokenizer

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.backbones import locate
from transformers_tart.embeddings import encode_texts


Row = dict[str, str]


@dataclass(frozen=True)
class EmbeddedSet:
    """A data set whose texts have been embedded once: embeddings (rows, layers, hidden) and labels (rows,)."""

    names: list[str]
    train: SupportSet
    test: SupportSet


def embed_set(model: TartForSequenceClassification, backbone: str, data: Path, name: str) -> EmbeddedSet:
    """Read and embed a data set."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows: list[Row] = [json.loads(line) for line in file]
    tokenizer = AutoTokenizer.from_pretrained(locate(backbone)[0])
    names = sorted({row["label"] for row in rows})

    def embed_split(split: str) -> SupportSet:
        chosen = [row for row in rows if row["split"] == split]
        embeddings = encode_texts(model.backbone, tokenizer, [row["text"] for row in chosen], layers="all")
        return SupportSet(embeddings, torch.tensor([names.index(row["label"]) for row in chosen]), tuple(names))

    return EmbeddedSet(names, embed_split("train"), embed_split("test"))


def draw_support(train: SupportSet, k: int, seed: int) -> SupportSet:
    """k train rows, as many of each class as of any other, or one more."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    share, rest = divmod(k, train.num_labels)
    if share == 0:
        raise ValueError(f"k is {k}, too few for the {train.num_labels} classes.")
    members = [order[train.labels[order] == label][: share + (label < rest)] for label in range(train.num_labels)]
    chosen = torch.cat(members)
    return SupportSet(train.embeddings[chosen], train.labels[chosen], train.label_names)


def predict(model: TartForSequenceClassification, support: SupportSet, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """TART's probabilities (n, classes), and the scaled support and query embeddings that it reads."""
    prepared = model.prepare_support(support)
    features = prepared.scaling.transform(query)
    with torch.no_grad():
        logits = model.reasoner.query(prepared.state, features[None])[0]
    return logits.double().softmax(-1), prepared.scaling.transform(support.embeddings), features


def measure_once(model: TartForSequenceClassification, rows: EmbeddedSet, k: int, seed: int) -> dict[str, float]:
    """Accuracy and log loss of one support set."""
    support_set = draw_support(rows.train, k, seed)
    probability, support, query = predict(model, support_set, rows.test.embeddings)
    true, classes = rows.test.labels, range(len(rows.names))
    logistic = LogisticRegression(max_iter=2000).fit(support, support_set.labels)
    # as one layer: the layers together have a mean squared norm of 1
    scale = support.square().sum(1).mean().sqrt()
    ridge = RidgeClassifier(alpha=1.0).fit(support / scale, support_set.labels)
    return {
        "accuracy": accuracy_score(true, probability.argmax(-1)),
        "log_loss": log_loss(true, probability, labels=classes),
        "logistic_accuracy": accuracy_score(true, logistic.predict(query)),
        "logistic_log_loss": log_loss(true, logistic.predict_proba(query), labels=classes),
        "ridge_accuracy": accuracy_score(true, ridge.predict(query / scale)),
    }


def measure(backbone: str, data: Path, name: str, sizes: list[int], seeds: int) -> list[dict[str, float]]:
    """Means over the seeds, for each size of the support set."""
    model = TartForSequenceClassification.from_backbone(backbone)
    rows = embed_set(model, backbone, data, name)
    results = [[measure_once(model, rows, k, seed) for seed in range(seeds)] for k in sizes]
    return [{metric: mean(result[metric] for result in of_size) for metric in of_size[0]} for of_size in results]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="NAME:K or NAME:K,K")
    parser.add_argument("--backbone", required=True, help="Hub id or folder, or mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print("| data set | k | TART | log loss | logistic regression | log loss | ridge |\n|---|---|---|---|---|---|---|")
    for item in args.sets:
        name, listed = item.split(":")
        sizes = [int(k) for k in listed.split(",")]
        for k, r in zip(sizes, measure(args.backbone, args.data, name, sizes, args.seeds), strict=True):
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
