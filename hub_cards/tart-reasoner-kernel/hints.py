"""Measure label hints without examples on the train rows of labeled sets.

    python hints.py MODEL DATA [--sets sst2 trec6] [--rows 300] [--max-length 64] [--prompt "query: "]
                    [--templates "{}" "This text expresses {}."]

MODEL is the folder or Hub id of a backbone, DATA a folder with a file NAME.jsonl.gz for each set, whose rows have
`text`, `label` and `split`. Prints the accuracy in percent of each hint alone, as it is and less its mean over inputs
without content, for each template of the labels, and that of the reasoner with all of them.
"""

import argparse
import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones.reference import load_processor


SETS = ("sst2", "cr", "trec6", "ag_news", "emotion", "tweet_sentiment", "sms_spam", "imdb")


def read_rows(path: Path, count: int) -> list[dict]:
    """Return the first train rows of a set."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(islice((row for row in map(json.loads, file) if row["split"] == "train"), count))


def measure(model: TartForSequenceClassification, tokenizer: object, rows: list[dict], template: str) -> dict:
    """Return the accuracy of each hint, and of the reasoner, by name."""
    names = sorted({row["label"] for row in rows})
    options = {"candidate_labels": names, "hypothesis_template": template}
    prepared = model.prepare_examples(None, tokenizer, **options)
    embedder = model.embedder()
    tokens = embedder.tokenize(tokenizer, [row["text"] for row in rows])
    embeddings = embedder.embed_rows(tokens, prepared.reading, pad_token_id=tokenizer.pad_token_id)
    hints, labels = prepared.support.hints, torch.tensor([names.index(row["label"]) for row in rows])
    scores, centers = hints.score(embeddings), hints.calibration.mean(0)
    answers = {"reasoner": model.answer(embeddings, prepared)}
    for number, name in enumerate(hints.names):
        answers[name] = scores[:, number]
        answers[f"{name}, centered"] = scores[:, number] - centers[number]
    return {name: 100 * (found.argmax(1) == labels).float().mean().item() for name, found in answers.items()}


def main() -> None:
    """Print a table for each template."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--prompt")
    parser.add_argument("--templates", nargs="+", default=["{}", "The topic is {}.", "This text expresses {}."])
    args = parser.parse_args()
    options = {"max_length": args.max_length, "prompt": args.prompt}
    model = TartForSequenceClassification.from_backbone(args.model, **options)
    tokenizer = load_processor(model)
    for template in args.templates:
        found = [
            measure(model, tokenizer, read_rows(args.data / f"{n}.jsonl.gz", args.rows), template) for n in args.sets
        ]
        for name in found[0]:
            values = [each[name] for each in found]
            print(f"{template:28}{name:28}", *(f"{value:5.1f}" for value in values), f"| {np.mean(values):.2f}")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
