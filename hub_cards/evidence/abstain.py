"""Measure when not to answer, and several labels at once: scope, label sets, accuracy kept, and pairs of texts.

    python abstain.py MODEL DATA --output results.jsonl [--parts scope sets pairs] [--rows test] [--seeds 5] [--k 256]

MODEL is the folder or Hub id of a backbone, DATA a folder with a file NAME.jsonl.gz for each set, whose rows have
`text`, `label` and `split`. Support sets are random train rows; queries are test rows, or with `--rows train` other
train rows, by which methods were chosen. Each run is a line of the output, and finished ones are skipped; means over
seeds are printed. With `--cache FOLDER`, embeddings are kept there.

scope: examples of banking77; AUROC of `out_of_scope` for its queries against those of other sets.
sets: coverage and size of label sets of a coverage of 0.9, and accuracy of the 90 % most certain answers.
pairs: two texts of different classes of ag_news in one, with both labels; macro F1 and subset accuracy of the default
task, of one without hints, and of logistic regression for each label, on the sentence embedding and on all views.
"""

import argparse
import gzip
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.multiclass import OneVsRestClassifier

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.answers.conformal import least_probability, predict_held_out
from transformers_tart.answers.scope import Scope
from transformers_tart.backbones.reference import load_processor
from transformers_tart.inputs.examples import Examples
from transformers_tart.projection import scale_views


IN_SCOPE, OUT_OF_SCOPE = "banking77", ("20newsgroups", "sst2", "trec6")
SETS = ("trec6", "ag_news", "emotion", "sst2", "tweet_sentiment", "banking77")
COVERAGE = 0.9
PAIRS = {"train": 1000, "test": 500}


class Texts:
    """Rows of sets, embedded when they are needed, and once."""

    def __init__(self, model, data, cache):
        self.model, self.data, self.cache, self.kept = model, data, cache, {}

    def rows(self, name):
        """Return the rows of a set."""
        with gzip.open(self.data / f"{name}.jsonl.gz", "rt") as file:
            return [json.loads(line) for line in file]

    def embed(self, texts):
        """Return embeddings (n, layers, hidden) of texts."""
        found = self.model.embedder().embed_examples(Examples(texts, [], ()), load_processor(self.model))
        return found.embeddings.half()

    def load(self, name, make):
        """Return what `make` returns, from memory or a file if it is there."""
        backbone = Path(self.model.config.base_model_name_or_path).name
        path = None if self.cache is None else self.cache / f"{backbone}.{name}.pt"
        if name not in self.kept:
            is_there = path is not None and path.exists()
            self.kept[name] = torch.load(path) if is_there else make()
            if path is not None and not is_there:
                torch.save(self.kept[name], path)
        return self.kept[name]

    def of_set(self, name):
        """Return embeddings and labels of the train and test rows of a set."""

        def make():
            rows, found = self.rows(name), {}
            names = sorted({row["label"] for row in rows})
            for split in ("train", "test"):
                chosen = [row for row in rows if row["split"] == split]
                found[split] = self.embed([row["text"] for row in chosen])
                found[f"{split}_labels"] = torch.tensor([names.index(row["label"]) for row in chosen])
            return found

        return self.load(name, make)

    def of_pairs(self):
        """Return embeddings and labels (n, 4) of pairs of texts of ag_news, and the names of the labels."""

        def make():
            rows, found = self.rows("ag_news"), {}
            found["names"] = sorted({str(row["label"]) for row in rows})
            for split, count in PAIRS.items():
                random = np.random.default_rng(0)
                chosen, texts = [row for row in rows if row["split"] == split], []
                members = torch.zeros(count, len(found["names"]), dtype=torch.int64)
                while len(texts) < count:
                    first, second = (chosen[i] for i in random.choice(len(chosen), 2, replace=False))
                    if first["label"] != second["label"]:
                        for each in (first, second):
                            members[len(texts), found["names"].index(str(each["label"]))] = 1
                        texts.append(f"{first['text']} {second['text']}")
                found[split], found[f"{split}_labels"] = self.embed(texts), members
            return found

        return self.load("ag_news_pairs", make)

    def draw(self, found, k, seed, rows):
        """Return embeddings and labels of k examples and of queries."""
        embeddings, labels = found["train"].float(), found["train_labels"]
        order = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))
        examples = (embeddings[order[:k]], labels[order[:k]])
        if rows == "train":
            return examples, (embeddings[order[k:]], labels[order[k:]])
        return examples, (found["test"].float(), found["test_labels"])


def prepare(model, embeddings, labels):
    """Return a prepared support set, and the classes that it has."""
    seen, numbers = labels.unique(return_inverse=True)
    names = tuple(str(int(label)) for label in seen)
    return model.prepare_embedded(SupportSet(embeddings, numbers, names)), seen


def answer(model, prepared, queries):
    """Return the logits of queries."""
    return torch.cat([model.answer(part, prepared) for part in queries.split(250)])


def measure_scope(texts, name, k, seed, rows):
    """Return the AUROC against another set, or all of them, and the share of queries that are over 0.95."""
    (examples, labels), (queries, _) = texts.draw(texts.of_set(IN_SCOPE), k, seed, rows)
    prepared, _ = prepare(texts.model, examples, labels)
    others = OUT_OF_SCOPE if name == "all" else [name]
    out = torch.cat([texts.of_set(other)[rows].float() for other in others])
    both, truth = torch.cat([queries, out]), [0] * len(queries) + [1] * len(out)
    degrees = Scope.of(prepared).compare(both)
    doubt = 1 - answer(texts.model, prepared, both).softmax(-1).amax(1)
    over = degrees > 0.95
    return {
        "auroc": roc_auc_score(truth, degrees),
        "auroc of the doubt": roc_auc_score(truth, doubt),
        "inside over 0.95": float(over[: len(queries)].float().mean()),
        "outside over 0.95": float(over[len(queries) :].float().mean()),
    }


def measure_sets(texts, name, k, seed, rows):
    """Return coverage and size of label sets, and the accuracy of all answers and of the most certain ones."""
    (examples, labels), (queries, truth) = texts.draw(texts.of_set(name), k, seed, rows)
    prepared, seen = prepare(texts.model, examples, labels)
    probabilities = answer(texts.model, prepared, queries).softmax(-1)
    best, chosen = probabilities.max(1)
    excluded = least_probability(predict_held_out(texts.model, prepared), COVERAGE)
    listed = (probabilities >= excluded) | (probabilities == best[:, None])
    is_right, is_true = seen[chosen] == truth, seen[None] == truth[:, None]
    certain = best.argsort(descending=True)[: round(0.9 * len(best))]
    return {
        "coverage": float((listed & is_true).any(1).float().mean()),
        "size": float(listed.sum(1).float().mean()),
        "accuracy": float(is_right.float().mean()),
        "accuracy of 90 %": float(is_right[certain].float().mean()),
    }


def measure_pairs(texts, name, k, seed, rows):
    """Return macro F1 and subset accuracy of a method."""
    found = texts.of_pairs()
    (examples, labels), (queries, truth) = texts.draw(found, k, seed, rows)
    model, names = texts.model, tuple(found["names"])
    hints = None
    if name == "tart":
        rows_of_names = [{"text": each, "label": each} for each in names]
        hints = model.encode_support(rows_of_names, load_processor(model), candidate_labels=names).hints
    prepared = model.prepare_embedded(SupportSet(examples, labels, names, hints=hints))
    if name.startswith("tart"):
        predicted = answer(model, prepared, queries) > 0
    else:
        scaled = [scale_views(each, prepared.scalings) for each in (examples, queries)]
        inputs = [each[0] if name == "sentence" else torch.cat(each, dim=1) for each in scaled]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            probe = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(inputs[0].numpy(), labels.numpy())
        predicted = torch.tensor(probe.predict(inputs[1].numpy()))
    scores = truth.numpy(), predicted.numpy().astype(int)
    return {"macro F1": f1_score(*scores, average="macro"), "subset accuracy": accuracy_score(*scores)}


PARTS = {
    "scope": (measure_scope, ("all", *OUT_OF_SCOPE)),
    "sets": (measure_sets, SETS),
    "pairs": (measure_pairs, ("tart", "tart without hints", "sentence", "all views")),
}


@torch.no_grad()
def main():
    """Measure what is not in the output yet, and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", choices=("train", "test"), default="test")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--k", type=int, nargs="+", default=[256])
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    texts = Texts(TartForSequenceClassification.from_backbone(args.model), args.data, args.cache)
    lines = args.output.read_text().splitlines() if args.output.exists() else []
    done = {tuple(run["run"]): run["values"] for run in map(json.loads, lines)}
    for part in args.parts:
        measure, names = PARTS[part]
        for k in args.k:
            for name in names:
                for seed in range(args.seeds):
                    run = (Path(args.model).name, args.rows, part, name, k, seed)
                    if run not in done:
                        done[run] = measure(texts, name, k, seed, args.rows)
                        with open(args.output, "a") as file:
                            file.write(json.dumps({"run": run, "values": done[run]}) + "\n")
                own = [done[Path(args.model).name, args.rows, part, name, k, seed] for seed in range(args.seeds)]
                means = {key: np.mean([values[key] for values in own]) for key in own[0]}
                print(part, name, k, *(f"{key} {value:.4f}" for key, value in means.items()), sep=", ", flush=True)


if __name__ == "__main__":
    main()
