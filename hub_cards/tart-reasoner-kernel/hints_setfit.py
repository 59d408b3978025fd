"""Measure SetFit and the composed model on the same support sets: accuracy, log loss and CPU seconds.

    python hints_setfit.py FOLDER/minilm DATA --cache EMBEDDINGS --baselines RESULTS --sizes 8 --seeds 2

Both read texts, and each run loads its model anew. What was measured before is not repeated.
"""

import argparse
import time

import numpy as np
import torch
from hints_sets import MAX_LENGTH, MOST_QUERIES, Results, add_options, fill_in, load, read_rows, score

from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.tasks import Task


SETS = ("sst2", "cr", "ag_news", "trec6", "emotion", "tweet_sentiment", "sms_spam", "banking77")  # the slowest last
COLUMNS = ("accuracy", "log_loss", "calibration_error", "cpu_seconds")


def read_task(args: argparse.Namespace, name: str) -> Task:
    """Return the texts of a set as a task."""
    parts = [read_rows(args, name, "train", args.rows), read_rows(args, name, "test", MOST_QUERIES)]
    names = sorted({row["label"] for row in parts[0]})
    columns = [([row["text"] for row in rows], [names.index(row["label"]) for row in rows]) for rows in parts]
    return Task(name, tuple(names), *columns[0], *columns[1])


def measure(args: argparse.Namespace, task: Task, support: Support, method: str) -> dict[str, float]:
    """Return the scores and CPU seconds of fit and predict."""
    start = time.process_time()
    context = TaskContext(task, Models(str(args.model), max_length=MAX_LENGTH))
    probabilities = METHODS[method](context, support)
    return {**score(probabilities, torch.tensor(task.test_labels)), "cpu_seconds": time.process_time() - start}


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--methods", nargs="+", default=["tart", "setfit"], choices=METHODS)
    args = parser.parse_args()
    args.sets, args.sizes = args.sets or SETS, args.sizes or [8]
    args = fill_in(args)
    torch.set_num_threads(1)
    args.baselines.mkdir(parents=True, exist_ok=True)
    results = Results(args.baselines / f"setfit.{args.model.name}.json")
    rows: dict[tuple[int, str], dict[str, list[list[float]]]] = {}
    for size in args.sizes:
        for seed in range(args.seeds):
            for name in args.sets:
                found, task = load(args, name), read_task(args, name)
                support = Support(tuple(found.draw(size, seed).support.tolist()), seed)
                for method in args.methods:
                    kept = results.of_draw(name, size, seed)
                    if method not in kept:
                        kept[method] = measure(args, task, support, method)
                        results.write()
                    own = [kept[method][column] for column in COLUMNS]
                    rows.setdefault((size, method), {}).setdefault(name, []).append(own)
                    print(size, seed, name, method, np.round(own, 3), flush=True)
    print(f"| of each | method | sets | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 3)}")
    for (size, method), sets in rows.items():
        means = np.mean([np.mean(runs, 0) for runs in sets.values()], 0)
        print(f"| {size} | {method} | {len(sets)} | {' | '.join(f'{value:.3f}' for value in means)} |")


if __name__ == "__main__":
    main()
