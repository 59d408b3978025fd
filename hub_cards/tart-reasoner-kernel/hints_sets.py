"""Labeled sets, their embeddings and the draws of support sets that the other scripts `hints_*.py` share.

A file MODEL.SET.pt holds `names` of the classes, `train` and `test` (n, layers of all views, hidden), `train_labels`
and `test_labels` (n,), and `slot`, the layer that baselines read: the sentence embedding, or the end of the one-word
prompt in the last layer.
"""

import gzip
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from transformers_tart import TartForSequenceClassification
from transformers_tart.embeddings.views import layer_counts
from transformers_tart.evaluation.metrics import METRICS
from transformers_tart.inputs.examples import Examples


SETS = (
    *("sst2", "cr", "trec6", "ag_news", "emotion", "tweet_sentiment", "sms_spam", "imdb"),
    *("rotten_tomatoes", "tweet_hate", "civil_toxic", "20newsgroups", "banking77"),
)
SETS_OF_LANGUAGE_MODELS = SETS[:8]
SIZES = (1, 2, 4, 8, 16, 32, 128)
SIZES_OF_LANGUAGE_MODELS = SIZES[:5]
MOST_QUERIES = 500
MAX_LENGTH = 64
SCORES = tuple(METRICS)
READ_BY_BASELINES = ("sentence", "one_word_final")


@dataclass(frozen=True)
class Draw:
    """Rows of a support set, and rows of the queries in another part of the data or in the same one."""

    support: Tensor  # (k,) indices of train rows
    queries: Tensor  # (n,) indices of rows of the split that is asked


@dataclass(frozen=True)
class EmbeddedSet:
    """A labeled set with the embeddings of a model."""

    name: str
    names: tuple[str, ...]
    train: Tensor  # (n, layers of all views, hidden)
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    slot: int = 0

    @cached_property
    def fewest(self) -> int:
        """The number of train rows of the rarest class."""
        return int(self.train_labels.bincount().min())

    def draw(self, size: int, seed: int, split: str = "test") -> Draw:
        """Draw `size` train rows of each class, or all of a class with fewer; larger draws hold the smaller ones.

        With the split `"train"` the queries are up to 500 train rows, at most a third, that no draw of the seed uses.
        """
        order = torch.from_numpy(np.random.RandomState(seed).permutation(len(self.train_labels)))
        queries = torch.arange(len(self.test_labels))
        if split == "train":
            count = min(MOST_QUERIES, len(order) // 3)
            order, queries = order[:-count], order[-count:]
        labels = self.train_labels[order]
        chosen = torch.cat([order[labels == label][:size] for label in range(len(self.names))])
        mixed = torch.from_numpy(np.random.RandomState(seed).permutation(len(chosen)))
        return Draw(chosen[mixed], queries)

    def rows(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the embeddings and labels of a split."""
        return (self.train, self.train_labels) if split == "train" else (self.test, self.test_labels)


def load(args: Namespace, name: str) -> EmbeddedSet | None:
    """Return a set with its embeddings, computed if they are not cached; `None` where only cached ones are wanted."""
    path = args.cache / f"{args.model.name}.{name}.pt"
    if not path.exists():
        if args.cached_only:
            return None
        args.cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        torch.save(embed(args, name), part)
        part.rename(path)
    found = torch.load(path)
    columns = ("train", "train_labels", "test", "test_labels")
    rows = {column: found[column][: args.rows if column.startswith("train") else MOST_QUERIES] for column in columns}
    return EmbeddedSet(name, tuple(found["names"]), slot=found.get("slot", 0), **rows)


def compose(args: Namespace) -> Any:
    """Return the composed model with its default views, and its tokenizer."""
    options = {"dtype": torch.bfloat16 if args.language_model else torch.float32}
    options |= {"prompt": args.prompt} if args.prompt else {}
    model = TartForSequenceClassification.from_backbone(args.model, max_length=MAX_LENGTH, **options).eval()
    return model, AutoTokenizer.from_pretrained(args.model)


def read_rows(args: Namespace, name: str, split: str, count: int | None) -> list[dict[str, str]]:
    """Return the first rows of a split of a set."""
    with gzip.open(args.data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return list(islice((row for row in map(json.loads, file) if row["split"] == split), count))


@torch.inference_mode()
def embed(args: Namespace, name: str) -> dict[str, Any]:
    """Embed a set; float32 embeddings are kept in float16, those of a bfloat16 backbone in bfloat16."""
    model, tokenizer = compose(args)
    embedder, found = model.embedder(), {}
    dtype = torch.bfloat16 if model.backbone.dtype == torch.bfloat16 else torch.float16
    parts = {"train": read_rows(args, name, "train", args.rows), "test": read_rows(args, name, "test", MOST_QUERIES)}
    names = sorted({row["label"] for row in parts["train"]})
    for split, rows in parts.items():
        labels = [names.index(row["label"]) for row in rows]
        examples = Examples([row["text"] for row in rows], labels, tuple(names))
        found[split] = embedder.embed_examples(examples, tokenizer).embeddings.to(dtype)
        found[f"{split}_labels"] = torch.tensor(labels)
    views = model.config.views
    place = next(i for i, view in enumerate(views) if view.name in READ_BY_BASELINES)
    slot = sum(layer_counts(tuple(views), found["train"].shape[1])[:place])
    print(f"embedded {name}", flush=True)
    return {**found, "names": names, "slot": slot}


def score(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, log loss, Brier score and calibration error of probabilities (n, classes)."""
    return {name: metric(probabilities.double(), labels) for name, metric in METRICS.items()}


def add_options(parser: ArgumentParser) -> None:
    """Add the options that say what is measured and where it is kept."""
    parser.add_argument("model", type=Path, help="folder of the backbone")
    parser.add_argument("data", type=Path, help="folder of NAME.jsonl.gz with rows of text, label and split")
    parser.add_argument("--cache", type=Path, required=True, help="folder of the embeddings")
    parser.add_argument("--baselines", type=Path, required=True, help="folder of the results of the baselines")
    parser.add_argument("--sets", nargs="+", help="(default: all 13, or 8 with --language-model)")
    parser.add_argument("--sizes", type=int, nargs="+", help="examples of each class (default: 1 to 128, or to 16)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="first train rows to draw from (default: all, or 300)")
    parser.add_argument("--split", choices=("test", "train"), default="test", help="rows of the queries")
    parser.add_argument("--prompt", default="", help='text before each text, such as "query: " for e5')
    parser.add_argument("--language-model", action="store_true", help="fewer sets, sizes and rows by default")
    parser.add_argument("--cached-only", action="store_true", help="leave out sets whose embeddings are not cached")


def fill_in(args: Namespace) -> Namespace:
    """Fill in the defaults that depend on the kind of model."""
    defaults: Sequence[Any] = (SETS, SIZES, None)
    if args.language_model:
        defaults = (SETS_OF_LANGUAGE_MODELS, SIZES_OF_LANGUAGE_MODELS, 300)
    for name, value in zip(("sets", "sizes", "rows"), defaults, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def measurable(found: EmbeddedSet, size: int) -> bool:
    """Return whether a size is measured on a set: 128 of each only where every class has them."""
    return size < SIZES[-1] or found.fewest >= size


class Results:
    """Results in a JSON file, by set, size and seed, then by method."""

    def __init__(self, path: Path):
        self.path = path
        self.found: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text()) if path.exists() else {}

    @classmethod
    def of(cls, args: Namespace) -> "Results":
        """Return the results of the baselines of a model."""
        args.baselines.mkdir(parents=True, exist_ok=True)
        return cls(args.baselines / f"{args.model.name}.{args.split}.json")

    def of_draw(self, name: str, size: int, seed: int) -> dict[str, dict[str, float]]:
        """Return the results of all methods on a support set."""
        return self.found.setdefault(f"{name} {size} {seed}", {})

    def write(self) -> None:
        """Write the file."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=0), encoding="utf-8")
        part.rename(self.path)
