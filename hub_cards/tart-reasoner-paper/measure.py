"""Measures a `gpt2` reasoner on fresh tasks of its own family, beside logistic regression on the same tasks.

    transformers-tart train-reasoner --preset paper-small --output paper-small
    python measure.py --reasoner ./paper-small --k 16 64 65

x ~ N(0, I) in 16 dimensions, w ~ 10 N(0, I), y ~ Bernoulli(sigmoid(w·x)); arXiv 2306.07536, section 4.1. The reasoner
reads x as it is, without the projection that embeddings of other widths need.
"""

import argparse
from statistics import mean

import torch
from torch import Tensor
from tqdm.auto import tqdm

from transformers_tart import TartReasoner
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.metrics import accuracy, log_loss
from transformers_tart.training.sources import PaperTasks, Ramp


METHODS = ("logistic_regression", "logistic_regression_cv")


def draw(count: int, size: int, dim: int, alpha: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, size, dim) inputs and (count, size) labels."""
    whole = PaperTasks(Ramp(dim, dim, 0, 1), Ramp(size, size, 0, 1), dim=dim, alpha=alpha, batch_size=count)
    batch = whole.draw(0, torch.Generator().manual_seed(seed))
    return batch.embeddings, batch.labels


def main() -> None:
    """Print accuracy and log loss of each method at each k."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reasoner", required=True, help="folder or Hub id")
    parser.add_argument("--k", type=int, nargs="+", default=[16, 64, 65])
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=10)
    parser.add_argument("--seed", type=int, default=10_000)
    args = parser.parse_args()
    reasoner = TartReasoner.from_pretrained(args.reasoner).eval()
    print("| k | " + " | ".join(("reasoner", *METHODS)) + " |\n|---|---|---|---|")
    for k in args.k:
        x, y = draw(args.tasks, k + args.queries, args.dim, args.alpha, args.seed + k)
        usable = (y[:, :k] != y[:, :1]).any(1)
        x, y = x[usable], y[usable]
        with torch.inference_mode():
            state = reasoner.architecture.prepare(x[:, :k], y[:, :k], 2)
            probabilities = reasoner.architecture.query(state, x[:, k:]).double().softmax(-1)
        found = {"reasoner": list(probabilities)}
        for name in METHODS:
            tasks = tqdm(zip(x, y, strict=True), total=len(x), desc=f"{name}, k={k}", leave=False)
            found[name] = [BASELINES[name](a[:k], b[:k], a[k:], 2) for a, b in tasks]
        cells = [
            f"{100 * mean(accuracy(p, b[k:]) for p, b in zip(each, y, strict=True)):.1f} "
            f"({mean(log_loss(p, b[k:]) for p, b in zip(each, y, strict=True)):.3f})"
            for each in found.values()
        ]
        print(f"| {k} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
