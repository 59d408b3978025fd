"""Measure label hints without examples on the train rows of labeled sets.

    python hints.py MODEL DATA [--sets sst2 trec6] [--rows 64] [--max-length 64] [--prompt "query: "]
                    [--templates "{}" "This text expresses {}."]

MODEL is the folder or Hub id of a backbone, DATA a folder with a file NAME.jsonl.gz for each set, whose rows have
`text`, `label` and `split`. Prints a line for each set, template of the labels and hint, as soon as the set is done:
the accuracy in percent of the hint alone, as it is and less its mean over inputs without content, and that of the
reasoner with all of them; at the end the means over sets.
"""

import argparse
import gzip
import json
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transformers_tart import TartForSequenceClassification
from transformers_tart.backbones.reference import load_processor


SETS = ("sst2", "cr", "trec6", "ag_news", "emotion", "tweet_sentiment", "sms_spam", "imdb")


def read_rows(path: Path, count: int) -> list[dict]:
    """Return the first train rows of a set."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(islice((row for row in map(json.loads, file) if row["split"] == "train"), count))


def measure(model: TartForSequenceClassification, tokenizer: Any, rows: list[dict], templates: list[str]) -> dict:
    """Return the accuracy of each hint, and of the reasoner, by template and name. Rows are embedded once."""
    names = sorted({row["label"] for row in rows})
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    embedder, embeddings, found = model.embedder(), None, {}
    for template in templates:
        prepared = model.prepare_examples(None, tokenizer, candidate_labels=names, hypothesis_template=template)
        if embeddings is None:
            tokens = embedder.tokenize(tokenizer, [row["text"] for row in rows])
            embeddings = embedder.embed_rows(tokens, prepared.reading, pad_token_id=tokenizer.pad_token_id)
        hints = prepared.support.hints
        scores, centers = hints.score(embeddings), hints.calibration.nanmean(0)
        answers = {"reasoner": model.answer(embeddings, prepared)}
        for number, name in enumerate(hints.names):
            answers[name] = scores[:, number]
            answers[f"{name}, centered"] = scores[:, number] - centers[number]
        for name, logits in answers.items():
            found[template, name] = 100 * (logits.argmax(1) == labels).float().mean().item()
    return found


def main() -> None:
    """Print the accuracies of each set, and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--prompt")
    parser.add_argument("--templates", nargs="+", default=["{}", "The topic is {}.", "This text expresses {}."])
    args = parser.parse_args()
    options = {"max_length": args.max_length, "prompt": args.prompt}
    model = TartForSequenceClassification.from_backbone(args.model, **options)
    tokenizer = load_processor(model)
    totals = defaultdict(list)
    for name in args.sets:
        found = measure(model, tokenizer, read_rows(args.data / f"{name}.jsonl.gz", args.rows), args.templates)
        print_lines(name, found)
        for key, value in found.items():
            totals[key].append(value)
    print_lines("mean", {key: np.mean(values) for key, values in totals.items()})


def print_lines(name: str, found: dict[tuple[str, str], float]) -> None:
    """Print the accuracies of one set by template and hint, at once."""
    for (template, hint), value in found.items():
        print(f"{name:16}{template:28}{hint:28}{value:5.1f}", flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
