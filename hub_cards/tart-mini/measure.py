"""Measures language models: bits per byte of held-out text, and what a linear probe reads from their embeddings.

    python measure.py --models mini FOLDER_OR_ID --corpus FOLDER --text FOLDER

The text folder holds data sets `<name>.jsonl.gz` of rows {"text", "label", "split"}. The probe is a logistic
regression (C=1) on mean-pooled hidden states of the first 600 train rows, tested on the first 400 test rows.
"""

import argparse
import gzip
import json
from pathlib import Path

import torch
from bits_per_byte import bits_per_byte
from corpus import read_held_out
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.embeddings import embed
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.evaluation.metrics import accuracy


DATA_SETS = ("ag_news", "sms_spam", "trec6", "sst2", "cr")
TRAIN_ROWS, TEST_ROWS = 600, 400


def read_rows(path: Path, split: str, count: int) -> list[dict[str, str]]:
    """The first rows of a split."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["split"] == split]
    return rows[:count]


def probe_accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path, layers: int | str) -> float:
    """Accuracy of a linear probe on one data set, from one layer or from all."""
    train, test = read_rows(path, "train", TRAIN_ROWS), read_rows(path, "test", TEST_ROWS)
    names = sorted({row["label"] for row in train})
    support, query, labels = embed(
        model.base_model,
        tokenizer,
        [row["text"] for row in train],
        [names.index(row["label"]) for row in train],
        [row["text"] for row in test],
        layers=layers,
    )
    truth = torch.tensor([names.index(row["label"]) for row in test])
    return accuracy(logistic_regression(support, labels, query, len(names)), truth)


def main() -> None:
    """Print one table of bits per byte and one of probes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mini"], help="Hub ids or folders of causal language models")
    parser.add_argument("--corpus", type=Path, help="folder of the shards, with heldout.jsonl.xz")
    parser.add_argument("--text", type=Path, help="folder of labeled data sets")
    parser.add_argument("--exclude", nargs="*", default=[], help="sources of held-out documents to leave out")
    args = parser.parse_args()
    models = {
        name: AutoModelForCausalLM.from_pretrained(BackboneReference.of(name).path).eval() for name in args.models
    }
    tokenizers = {name: AutoTokenizer.from_pretrained(BackboneReference.of(name).path) for name in args.models}
    if args.corpus is not None:
        texts = list(read_held_out(args.corpus, args.exclude)["text"])
        size = sum(len(text.encode()) for text in texts)
        print(f"| model | parameters | bits per byte of {len(texts)} documents, {size / 1e6:.2f} MB |\n|---|---|---|")
        for name, model in models.items():
            result = bits_per_byte(model, tokenizers[name], texts)
            print(f"| {Path(name).name} | {model.num_parameters():,} | {result:.3f} |")
    if args.text is not None:
        print("\n| linear probe | " + " | ".join(DATA_SETS) + " |\n|---" + "|---" * len(DATA_SETS) + "|")
        for name, model in models.items():
            for title, layers in (("all layers", "all"), ("last layer", -1)):
                paths = [args.text / f"{data_set}.jsonl.gz" for data_set in DATA_SETS]
                cells = [f"{probe_accuracy(model, tokenizers[name], path, layers):.3f}" for path in paths]
                print(f"| {Path(name).name}, {title} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
