"""Measure logistic regression on one view, and keep the results for `hints_tables.py`.

    python hints_baselines.py FOLDER/minilm DATA --cache EMBEDDINGS --baselines RESULTS

What was measured before is not repeated. With one example of each class, only C=1 is measured.
"""

import argparse
import time

import torch
from hints_sets import EmbeddedSet, Results, add_options, fill_in, load, measurable, score

from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.projection import LayerScaling


METHODS = ("logistic_regression", "logistic_regression_cv")


def measure(found: EmbeddedSet, size: int, seed: int, split: str, method: str) -> dict[str, float]:
    """Return the scores and CPU seconds of a method on a support set, centered and scaled as `evaluate` does."""
    start, draw = time.process_time(), found.draw(size, seed, split)
    embeddings, labels = found.rows(split)
    support, slot = found.train[draw.support], slice(found.slot, found.slot + 1)
    scaling = LayerScaling.fit(support[:, slot])
    known, asked = (scaling.transform(rows[:, slot]) for rows in (support, embeddings[draw.queries]))
    answer = BASELINES[method](known, found.train_labels[draw.support], asked, len(found.names))
    return {**score(answer, labels[draw.queries]), "cpu_seconds": time.process_time() - start}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    args = fill_in(parser.parse_args())
    torch.set_num_threads(1)
    results = Results.of(args)
    for size in args.sizes:
        for name in args.sets:
            found = load(args, name)
            if found is None or not measurable(found, size):
                continue
            for seed in range(args.seeds):
                kept = results.of_draw(name, size, seed)
                missing = [method for method in METHODS[: 1 if size == 1 else 2] if method not in kept]
                kept.update({method: measure(found, size, seed, args.split, method) for method in missing})
                if missing:
                    results.write()
            print(args.model.name, args.split, size, name, flush=True)


if __name__ == "__main__":
    main()
