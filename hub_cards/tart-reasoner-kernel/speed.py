"""Times the reasoner and logistic regression in one run, in turn; medians.

python speed.py --k 256 --dim 768 --queries 1000
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from transformers_tart import TartReasoner
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.evaluation.tasks.embedded import ReasonerPredictor
from transformers_tart.training.sources import draw_batch


METHODS = ("logistic_regression", "logistic_regression_cv")


def main() -> None:
    """Print milliseconds a query, the support set included, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reasoner", default="kernel", help="name, folder or Hub id")
    parser.add_argument("--k", type=int, default=256)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    batch = draw_batch(1, args.k, args.queries, args.classes, generator)
    rotation = torch.linalg.qr(torch.randn(args.dim, args.dim, generator=generator))[0]
    x = batch.embeddings[0, :, : args.dim]
    x, y = x @ rotation[: x.shape[1]], batch.labels[0]
    reasoner = TartReasoner.from_pretrained(args.reasoner).eval()
    methods: dict[str, Callable] = {"reasoner": ReasonerPredictor(reasoner)}
    methods |= {name: BASELINES[name] for name in METHODS}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(args.rounds):
        for name, predict in methods.items():
            start = time.perf_counter()
            predict(x[: args.k], y[: args.k], x[args.k :], args.classes)
            seconds[name].append(time.perf_counter() - start)
    ours = median(seconds["reasoner"])
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, k={args.k}, {args.dim} dimensions")
    for name, times in seconds.items():
        each = 1000 * median(times) / args.queries
        print(f"{name}: {each:.3f} ms a query, {median(times) / ours:.2f} of the reasoner's")


if __name__ == "__main__":
    main()
