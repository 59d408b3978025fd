"""Measure `suggest` against random choice: accuracy as a task grows by rounds of labeled texts.

    python suggest.py MODEL DATA [--sets trec6 banking77] [--rounds 10] [--size 8] [--seeds 5] [--pool 1000] [--test]

MODEL is the folder or Hub id of a backbone, DATA a folder with a file NAME.jsonl.gz for each set, whose rows have
`text`, `label` and `split`. A task starts with 8 random train rows, or as many as hold two classes, and each round
adds rows of a pool of train rows: at random, or as suggested. Both start alike. Classes are those of the rows, without
hints from their names. Queries are the other train rows, by which the method was chosen, or with `--test` the first
500 test rows. With `--cache FOLDER`, embeddings are kept there. Prints accuracy in percent, its mean over seeds.
"""

import argparse
import gzip
import json
from pathlib import Path

import torch

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.answers.suggesting import Pool
from transformers_tart.backbones.reference import load_processor
from transformers_tart.inputs.examples import Examples


ROWS = {"train": 2000, "test": 500}


def embed(model, path, cache):
    """Return embeddings and labels of the train and test rows of a set, from the cache if they are there."""
    kept = None if cache is None else cache / f"{Path(model.config.base_model_name_or_path).name}.{path.name[:-9]}.pt"
    if kept is not None and kept.exists():
        return torch.load(kept)
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    names, found = sorted({row["label"] for row in rows}), {}
    for split, count in ROWS.items():
        chosen = [row for row in rows if row["split"] == split][:count]
        examples = Examples([row["text"] for row in chosen], [], ())
        found[split] = model.embedder().embed_examples(examples, load_processor(model)).embeddings.half()
        found[f"{split}_labels"] = torch.tensor([names.index(row["label"]) for row in chosen])
    if kept is not None:
        torch.save({**found, "names": names}, kept)
    return found


def predict(model, embeddings, labels, queries):
    """Return logits of queries, and the classes that the examples have."""
    seen, numbers = labels.unique(return_inverse=True)
    support = SupportSet(embeddings, numbers, tuple(str(int(label)) for label in seen))
    prepared = model.prepare_embedded(support)
    return torch.cat([model.answer(part, prepared) for part in queries.split(250)]), seen


def grow(model, pool, labels, queries, answers, args, seed, suggests):
    """Return the accuracy of a task at its start and after each round."""
    generator = torch.Generator().manual_seed(seed)
    start = args.size
    while len(labels[:start].unique()) < 2:
        start += 1
    chosen, accuracy = list(range(start)), []
    for number in range(args.rounds + 1):
        if number:
            rest = sorted(set(range(len(pool))) - set(chosen))
            if suggests:
                candidates = Pool(model.config.embedding_options.views)
                logits, _ = predict(model, pool[chosen], labels[chosen], pool[rest])
                candidates.add(rest, pool[rest], logits)
                chosen += [each["index"] for each in candidates.choose(pool[chosen], args.size)]
            else:
                chosen += [rest[i] for i in torch.randperm(len(rest), generator=generator)[: args.size]]
        if number in (0, args.rounds // 2, args.rounds):
            logits, seen = predict(model, pool[chosen], labels[chosen], queries)
            accuracy.append(100 * float((seen[logits.argmax(1)] == answers).float().mean()))
    return accuracy


@torch.no_grad()
def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["trec6", "banking77", "emotion", "sst2", "ag_news"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=1000)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    model = TartForSequenceClassification.from_backbone(args.model)
    print("set, choice: accuracy at the start, after half of the rounds, after all")
    for name in args.sets:
        found = embed(model, args.data / f"{name}.jsonl.gz", args.cache)
        embeddings, labels = found["train"].float(), torch.as_tensor(found["train_labels"])
        curves = {"random": [], "suggest": []}
        for seed in range(args.seeds):
            order = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))
            pool, other = order[: args.pool], order[args.pool :]
            queries, answers = embeddings[other], labels[other]
            if args.test:
                queries, answers = found["test"].float(), torch.as_tensor(found["test_labels"])
            for choice, found_curves in curves.items():
                suggests = choice == "suggest"
                found_curves.append(
                    grow(model, embeddings[pool], labels[pool], queries, answers, args, seed, suggests)
                )
        for choice, found_curves in curves.items():
            print(name, choice, *(f"{value:.1f}" for value in torch.tensor(found_curves).mean(0)), flush=True)
        gains = torch.tensor(curves["suggest"])[:, -1] - torch.tensor(curves["random"])[:, -1]
        print(name, f"gain {gains.mean():+.1f}, of the seeds {' '.join(f'{gain:+.1f}' for gain in gains)}", flush=True)


if __name__ == "__main__":
    main()
