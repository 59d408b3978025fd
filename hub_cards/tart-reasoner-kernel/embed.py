"""Embeds labeled texts, for `transformers-tart evaluate-reasoner`.

    python embed.py --backbone mini --data FOLDER --output embeddings
    transformers-tart evaluate-reasoner embeddings/*.safetensors --k 64 256

A data set is a file `<name>.jsonl.gz` of rows {"text", "label", "split"}. Its embeddings are the mean-pooled hidden
states of all layers, the train rows before the test rows.
"""

import argparse
import gzip
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.embeddings import encode_texts


def embed_file(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, output: Path) -> None:
    """Embed one data set and save it, half precision."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: row["split"] != "train")
    names = sorted({row["label"] for row in rows})
    embeddings = encode_texts(model, tokenizer, [row["text"] for row in rows], layers="all")
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    metadata = {
        "labels": json.dumps(names),
        "train_rows": str(sum(row["split"] == "train" for row in rows)),
    }
    save_file({"embeddings": embeddings.half(), "labels": labels}, output, metadata=metadata)


def main() -> None:
    """Embed every data set of a folder, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="names of data sets (default: all in the folder)")
    parser.add_argument("--backbone", required=True, help="Hub id or folder, or mini")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    source = BackboneReference.of(args.backbone).path
    model, tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    args.output.mkdir(parents=True, exist_ok=True)
    paths = [args.data / f"{name}.jsonl.gz" for name in args.sets] or sorted(args.data.glob("*.jsonl.gz"))
    for path in tqdm(paths, desc="embedding", unit="data set"):
        embed_file(model, tokenizer, path, args.output / f"{path.name.removesuffix('.jsonl.gz')}.safetensors")


if __name__ == "__main__":
    main()
