"""Measure views of a language model on the train rows of labeled sets, each alone and in the presets.

    python views.py MODEL DATA [--sets sst2 trec6] [--sizes 4 16] [--seeds 3] [--rows 300] [--max-length 64]

MODEL is the folder or Hub id of a causal language model, DATA a folder with a file NAME.jsonl.gz for each set, whose
rows have `text`, `label` and `split`. Of the first train rows, 200 are drawn from for the support set, and the others
are the queries; a class with fewer rows than asked gives all it has. Prints accuracy in percent and log loss in nats.
"""

import argparse
import gzip
import json
from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from transformers_tart import TartForSequenceClassification, View
from transformers_tart.backbones.reference import load_processor
from transformers_tart.embeddings.views import PRESETS, VIEWS, split_views
from transformers_tart.inputs.examples import Examples
from transformers_tart.projection import LayerScaling


POOL = 200  # rows from which support sets are drawn
LAYERS = {"final": -1, "late": "late", "all": "all"}
STEM = 'This text: "{text}'
ESSENCE = (
    "The essence of a text is often captured by its main subjects and actions, while descriptive terms provide "
    "additional but less central details. With this in mind, this text: "
)
# Readings outside the registry.
OTHERS = [
    View("essence", ESSENCE + '"{text}" means in one word: "', "last"),
    View("essence_mean", ESSENCE + '"{text}', "mean"),
    View("quoted_last", STEM, "last"),
    View("about", STEM + '" In one word, this text is about: "', "last"),
    View("feels", STEM + '" In one word, its author feels: "', "last"),
    View("kind", STEM + '" In one word, this is a kind of: "', "last"),
    View("step_by_step", STEM + '" After thinking step by step, this text means in one word: "', "last"),
    View("echo_last", "{text}\n{text}", "last"),
]
BASES = ("mean", "last", "max", "quoted", "one_word", "one_word_described", "one_word_category", "echo")


def read_rows(path, count):
    """Return the first train rows of a set."""
    with gzip.open(path, "rt") as file:
        return list(islice((row for row in map(json.loads, file) if row["split"] == "train"), count))


def candidates():
    """Return each reading with each choice of layers."""
    readings = [VIEWS[name] for name in BASES] + OTHERS
    return [
        View(f"{view.name}_{name}", view.template, view.pooling, layers)
        for view in readings
        for name, layers in LAYERS.items()
    ]


def same(first, second):
    """Return whether two views read alike, whatever their names."""
    return (first.template, first.pooling, first.layers) == (second.template, second.pooling, second.layers)


def draw(labels, size, seed, classes):
    """Return the support set and the queries of a seed."""
    random = np.random.RandomState(seed)
    order = random.permutation(len(labels))
    pool = order[:POOL]
    chosen = np.concatenate([pool[labels[pool] == number][:size] for number in range(classes)])
    return random.permutation(chosen), order[POOL:]


@torch.no_grad()
def predict(reasoner, views, support, queries, labels, classes):
    """Return log-probabilities of queries, read by views that are mixed by evidence."""
    scalings = [LayerScaling.fit(view[support]) for view in views]
    scaled = [scaling.transform(view)[None] for scaling, view in zip(scalings, views, strict=True)]
    state = reasoner.prepare([view[:, support] for view in scaled], torch.tensor(labels[support])[None], classes)
    return reasoner.query(state, [view[:, queries] for view in scaled])[0].log_softmax(-1).numpy()


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    sets = ["sst2", "cr", "ag_news", "trec6", "emotion", "tweet_sentiment", "sms_spam", "imdb"]
    parser.add_argument("--sets", nargs="+", default=sets)
    parser.add_argument("--sizes", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--max-length", type=int, default=64)
    args = parser.parse_args()
    views = candidates()
    presets = {name: [VIEWS[view] for view in PRESETS["causal"][name]] for name in PRESETS["causal"]}
    groups = {view.name: [view] for view in views} | {f"preset {name}": each for name, each in presets.items()}
    model = TartForSequenceClassification.from_backbone(
        args.model, views=views, dtype=torch.bfloat16, max_length=args.max_length
    )
    tokenizer, found = load_processor(model), defaultdict(lambda: defaultdict(list))
    for name in args.sets:
        rows = read_rows(args.data / f"{name}.jsonl.gz", args.rows)
        names = sorted({row["label"] for row in rows})
        labels = np.array([names.index(row["label"]) for row in rows])
        examples = Examples([row["text"] for row in rows], labels.tolist(), tuple(names))
        embedded = split_views(model.embedder().embed_examples(examples, tokenizer).embeddings, views)
        for size in args.sizes:
            for seed in range(args.seeds):
                support, queries = draw(labels, size, seed, len(names))
                for group, members in groups.items():
                    read = [embedded[next(i for i, v in enumerate(views) if same(v, each))] for each in members]
                    scores = predict(model.reasoner, read, support, queries, labels, len(names))
                    right = scores.argmax(1) == labels[queries]
                    loss = -scores[np.arange(len(queries)), labels[queries]].clip(-36).mean()
                    found[group, size][name].append((100 * right.mean(), loss))
        print(name, "read", flush=True)
    print("| view |", " | ".join(f"{size} of each" for size in args.sizes), "|")
    for group in groups:
        means = [np.mean([np.mean(each, 0) for each in found[group, size].values()], 0) for size in args.sizes]
        print("|", group, "|", " | ".join(f"{accuracy:.1f} ({loss:.3f})" for accuracy, loss in means), "|")


if __name__ == "__main__":
    main()
