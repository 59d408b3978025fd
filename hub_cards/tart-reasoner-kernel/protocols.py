"""Measures protocols: accuracy (%) of the same support sets embedded alone, in one prompt, and each after all others.

    python protocols.py sms_spam ag_news --backbone FOLDER_OR_ID --data FOLDER --k 16 32 64 --seeds 5

A data set is a file `<name>.jsonl.gz` of rows {"text", "label", "split"}. Support sets are balanced, from train rows.
"held" is how many of the k examples the prompt has room for; a support set whose prompt has no room for an example of
each class counts for none of the protocols.
"""

import argparse
import gzip
import itertools
import json
import statistics
import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from transformers_tart import TartReasoner
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.configuration_tart import PROTOCOLS
from transformers_tart.embeddings import embed
from transformers_tart.inputs.balance import classes_in_turn


def read_rows(path: Path, split: str) -> list[dict[str, str]]:
    """The rows of a split."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["split"] == split]


def measure(
    args: argparse.Namespace, protocol: str, chosen: list[dict[str, str]], test: list[dict[str, str]], seed: int
) -> tuple[float, int]:
    """Accuracy (%) of a support set, and how many of its examples are read."""
    names = sorted({row["label"] for row in chosen})
    support, query, labels = embed(
        args.backbone,
        args.tokenizer,
        [row["text"] for row in chosen],
        [names.index(row["label"]) for row in chosen],
        [row["text"] for row in test],
        protocol=protocol,
        layers="all",
        label_names=names,
        max_characters=args.max_characters,
        seed=seed,
    )
    with torch.inference_mode():
        logits = args.reasoner(support[None], labels[None], query[None], num_labels=len(names)).logits[0]
    right = [names[i] == row["label"] for i, row in zip(logits.argmax(-1).tolist(), test, strict=True)]
    return 100 * statistics.mean(right), len(labels)


def main() -> None:
    """Print a row for each data set and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="names of data sets")
    parser.add_argument("--backbone", required=True, help="Hub id or folder, or mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500, help="test rows, the last ones (default: 500)")
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-characters", type=int, default=100, help="of a text (default: 100)")
    args = parser.parse_args()
    source = BackboneReference.of(args.backbone).path
    args.backbone, args.tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    args.reasoner = TartReasoner.from_pretrained("kernel").eval()
    print("| data set | k | held | support sets | " + " | ".join(PROTOCOLS) + " |\n" + "|---" * 7 + "|")
    for name, k in itertools.product(args.sets, args.k):
        pool, test = (read_rows(args.data / f"{name}.jsonl.gz", split) for split in ("train", "test"))
        found = []
        for seed in tqdm(range(args.seeds), desc=f"{name}, k={k}", leave=False):
            order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
            labels = sorted({row["label"] for row in pool})
            turns = classes_in_turn(torch.tensor([labels.index(pool[i]["label"]) for i in order]))
            chosen = [pool[order[i]] for i in turns[:k].tolist()]
            try:
                found.append([measure(args, protocol, chosen, test[-args.rows :], seed) for protocol in PROTOCOLS])
            except ValueError as err:
                print(f"{name}, k={k}, seed {seed}: {err}", file=sys.stderr)
        cells = [
            f"{statistics.mean(x):.1f} ± {statistics.pstdev(x):.1f}" for x in map(accuracies, zip(*found, strict=True))
        ]
        held = statistics.mean(count for row in found for _, count in row[1:]) if found else 0
        print(f"| {name} | {k} | {held:.0f} | {len(found)} | " + " | ".join(cells) + " |", flush=True)


def accuracies(results: tuple[tuple[float, int], ...]) -> list[float]:
    """Those of one protocol, a support set each."""
    return [accuracy for accuracy, _ in results]


if __name__ == "__main__":
    main()
