"""Measures protocols: accuracy (%) of the same support sets embedded alone, in one prompt, and each after all others.

    python protocols.py sms_spam ag_news --backbone FOLDER_OR_ID --data FOLDER --k 16 32 64 --seeds 5

A data set is a file `<name>.jsonl.gz` of rows {"text", "label", "split"}. Support sets are balanced, from train rows.
"held" is how many of the k examples the prompt has room for.
"""

import argparse
import gzip
import json
import statistics
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from transformers_tart import TartReasoner
from transformers_tart.backbones import locate
from transformers_tart.balance import classes_in_turn
from transformers_tart.configuration_tart import PROTOCOLS
from transformers_tart.embeddings import embed


def read_rows(path: Path, split: str) -> list[dict[str, str]]:
    """The rows of a split."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["split"] == split]


def main() -> None:
    """Print a row for each data set and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="names of data sets")
    parser.add_argument("--backbone", required=True, help="Hub id or folder, or mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test", help="rows that are classified (default: test)")
    parser.add_argument("--rows", type=int, default=500, help="how many of them (default: 500)")
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-characters", type=int, default=100, help="of a text (default: 100)")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS)
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--template")
    args = parser.parse_args()
    source, _ = locate(args.backbone)
    backbone, tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    reasoner = TartReasoner.from_pretrained("kernel").eval()
    print("| data set | k | held | " + " | ".join(args.protocols) + " |\n" + "|---" * (3 + len(args.protocols)) + "|")
    for name in args.sets:
        pool, test = (read_rows(args.data / f"{name}.jsonl.gz", split) for split in ("train", args.split))
        test = test[-args.rows :]
        names = sorted({row["label"] for row in pool})
        truth = torch.tensor([names.index(row["label"]) for row in test])
        for k in args.k:
            scores: dict[str, list[float]] = {protocol: [] for protocol in args.protocols}
            held: list[int] = []
            for seed in tqdm(range(args.seeds), desc=f"{name}, k={k}", leave=False):
                order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
                of_pool = torch.tensor([names.index(pool[i]["label"]) for i in order])
                chosen = [pool[order[i]] for i in classes_in_turn(of_pool)[:k]]
                for protocol in args.protocols:
                    support, query, labels = embed(
                        backbone,
                        tokenizer,
                        [row["text"] for row in chosen],
                        [names.index(row["label"]) for row in chosen],
                        [row["text"] for row in test],
                        protocol=protocol,
                        pooling=args.pooling,
                        layers="all",
                        template=args.template if protocol != "stream" else None,
                        label_names=names,
                        max_characters=args.max_characters,
                        seed=seed,
                    )
                    with torch.inference_mode():
                        logits = reasoner(support[None], labels[None], query[None], num_labels=len(names)).logits[0]
                    scores[protocol].append(100 * float((logits.argmax(-1) == truth).float().mean()))
                    if protocol != "stream":
                        held.append(len(labels))
            cells = [f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}" for values in scores.values()]
            print(f"| {name} | {k} | {statistics.mean(held):.0f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
