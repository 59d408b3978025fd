"""Measure the reasoner with label hints against examples of each class, beside the results of `hints_baselines.py`.

    python hints_tables.py FOLDER/minilm DATA --cache EMBEDDINGS --baselines RESULTS --names true none permuted
    python hints_tables.py FOLDER/smollm2-135m DATA --cache EMBEDDINGS --baselines RESULTS --language-model --sizes 0 1

`--names` says what the hints are made of: the names as they are (`true`), nothing (`none`), names without meaning
(`taken`), texts without meaning (`numbers`), and the names of other classes (`permuted`). Prints accuracy minus that
of the better logistic regression on the mean over sets, log loss over the lower of both, and the calibration error; at
size 0 the accuracy of each hint alone.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from hints_baselines import METHODS
from hints_sets import EmbeddedSet, Results, add_options, compose, fill_in, load, measurable, score
from torch import Tensor

from transformers_tart import TartReasoner
from transformers_tart.embeddings.views import split_views
from transformers_tart.hints import readable
from transformers_tart.projection import LayerScaling


NAMES = ("true", "none", "taken", "numbers", "permuted")
Scores = dict[str, float]


class Hints(NamedTuple):
    """Hints of all rows of a set: (n, hints, classes) each."""

    names: tuple[str, ...]
    train: Tensor
    asked: Tensor
    calibration: Tensor

    def choose(self, columns: Tensor, kinds: slice = slice(None)) -> "Hints":
        """Return some hints with other columns of classes."""
        return Hints(self.names[kinds], *(rows[:, kinds][..., columns] for rows in self[1:]))


class Measurer:
    """A reasoner and a composed model, and the sets to measure."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.model, self.tokenizer = compose(args)
        self.reasoner = self.model.reasoner
        if args.reasoner is not None:
            self.reasoner = TartReasoner.from_pretrained(args.reasoner).eval()
        self.views = self.model.config.embedding_options.views

    def hints(self, found: EmbeddedSet, names: str) -> Hints | None:
        """Return the hints of a set, `None` where there are none."""
        texts = None
        if names == "numbers":
            texts = {name: f"class {number}" for number, name in enumerate(found.names)}
        labels = tuple(f"class {number}" for number in range(len(found.names))) if names == "taken" else found.names
        if names == "none" or (texts is None and sum(readable(label) is not None for label in labels) < 2):
            return None
        named = {"candidate_labels": labels, "label_descriptions": texts}
        built = self.model.encode_support(None, self.tokenizer, **named).hints
        asked = found.rows(self.args.split)[0]
        return Hints(built.names, built.score(found.train), built.score(asked), built.calibration)

    def predict(self, found: EmbeddedSet, size: int, seed: int, hints: Hints | None) -> tuple[Tensor, Tensor]:
        """Return probabilities and labels of the queries of a draw."""
        draw = found.draw(size, seed, self.args.split)
        rows, labels = found.rows(self.args.split)
        support, asked = [], []
        for known, view in zip(split_views(found.train, self.views), split_views(rows, self.views), strict=True):
            known, view = known[draw.support].float(), view[draw.queries].float()
            if size:
                scaling = LayerScaling.fit(known)
                known, view = scaling.transform(known), scaling.transform(view)
            support.append(known.flatten(1)[None])
            asked.append(view.flatten(1)[None])
        given, own = {}, []
        if hints is not None:
            given = {"support_hints": hints.train[draw.support][None], "unlabeled_hints": hints.calibration[None]}
            own = [hints.asked[draw.queries][None]]
        targets = found.train_labels[draw.support][None]
        state = self.reasoner.prepare(support, targets, num_labels=len(found.names), **given)
        return self.reasoner.query(state, asked, *own)[0].double().softmax(-1), labels[draw.queries]

    def measure(self, found: EmbeddedSet, names: str, sizes: Sequence[int]) -> dict[tuple[int, int], Scores]:
        """Return the scores of each size and seed."""
        hints, every = self.hints(found, "true" if names == "permuted" else names), {}
        for size in sizes:
            for seed in range(self.args.seeds if size else 1):
                given = hints
                if names == "permuted" and hints is not None:
                    given = hints.choose(derange(len(found.names), seed))
                if size == 0 and given is None:
                    continue
                scores = score(*self.predict(found, size, seed, given))
                for place, name in enumerate(given.names if size == 0 and given is not None else ()):
                    alone = given.choose(torch.arange(len(found.names)), slice(place, place + 1))
                    raw, targets = given.asked[:, place].nan_to_num(-torch.inf), found.rows(self.args.split)[1]
                    scores[f"{name} as it is"] = float((raw.argmax(1) == targets).double().mean())
                    scores[f"{name} alone"] = score(*self.predict(found, 0, 0, alone))["accuracy"]
                every[size, seed] = scores
        return every


def derange(count: int, seed: int) -> Tensor:
    """Return a random cycle: a permutation that leaves no class in its place."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    result = torch.empty_like(order)
    result[order] = order.roll(1)
    return result


def baseline_means(results: Results, sets: Sequence[str], size: int, seeds: int) -> dict[str, Scores]:
    """Return the mean scores of each baseline that was measured on all sets."""
    means = {}
    for method in METHODS:
        rows = [results.of_draw(name, size, seed).get(method) for name in sets for seed in range(seeds)]
        if all(row is not None for row in rows):
            means[method] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return means


def show(found: dict[str, dict[str, dict[tuple[int, int], Scores]]], args: argparse.Namespace) -> None:
    """Print a table for each kind of names."""
    results = Results.of(args)
    plain: dict[int, Scores] = {}
    for names, sets in sorted(found.items(), key=lambda item: item[0] != "none"):
        print(
            f"\n| {args.model.name}, {args.split}, names: {names} | sets | accuracy | minus the better regression |",
            end="",
        )
        print(
            " minus no hints | log loss | over the lower | over the better's | calibration error |\n|---"
            + "|---" * 8
            + "|"
        )
        for size in args.sizes:
            chosen = [name for name in sets if (size, 0) in sets[name]]
            if not chosen:
                continue
            means = average([list_of(sets[name], size) for name in chosen])
            others = baseline_means(results, chosen, size, args.seeds) if size else {}
            best = max(others.values(), key=lambda each: each["accuracy"], default=None)
            least = min((each["log_loss"] for each in others.values()), default=None)
            if names == "none":
                plain[size] = means
            cells = [
                f"{100 * means['accuracy']:.2f}",
                f"{100 * (means['accuracy'] - best['accuracy']):+.2f}" if best else "–",
                f"{100 * (means['accuracy'] - plain[size]['accuracy']):+.2f}" if size in plain else "–",
                f"{means['log_loss']:.3f}",
                f"{means['log_loss'] / least:.3f}" if least else "–",
                f"{means['log_loss'] / best['log_loss']:.3f}" if best else "–",
                f"{means['calibration_error']:.3f}",
            ]
            print(f"| {size} of each | {len(chosen)} | {' | '.join(cells)} |")
            if size == 0:
                hints = [name for name in means if name.endswith(("as it is", "alone"))]
                print(
                    "".join(f"| {name} | {len(chosen)} | {100 * means[name]:.2f} |||||||\n" for name in hints), end=""
                )


def list_of(runs: dict[tuple[int, int], Scores], size: int) -> list[Scores]:
    """Return the scores of the seeds of a size."""
    return [scores for (own, _), scores in runs.items() if own == size]


def average(sets: Sequence[Sequence[Scores]]) -> Scores:
    """Return the mean over sets of the means over seeds, of scores that all sets have."""
    shared = set.intersection(*(set(runs[0]) for runs in sets))
    return {key: float(np.mean([np.mean([run[key] for run in runs]) for runs in sets])) for key in sorted(shared)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=["true", "none"])
    parser.add_argument("--reasoner", help="folder or Hub id (default: that of the package)")
    parser.add_argument("--json", help="file for the scores of each run")
    args = fill_in(parser.parse_args())
    torch.set_num_threads(1)
    measurer: Any = Measurer(args)
    every: dict[str, dict[str, dict[tuple[int, int], Scores]]] = defaultdict(dict)
    for name in args.sets:
        found = load(args, name)
        if found is None:
            print(f"{name} has no embeddings yet and is left out")
            continue
        sizes = [size for size in args.sizes if measurable(found, size)]
        with torch.inference_mode():
            for names in args.names:
                every[names][name] = measurer.measure(found, names, sizes)
        if args.json is not None:
            with open(args.json, "w", encoding="utf-8") as file:
                flat = {
                    f"{n} {s} {size} {seed}": x
                    for n, sets in every.items()
                    for s, runs in sets.items()
                    for (size, seed), x in runs.items()
                }
                json.dump(flat, file, indent=0)
    show(every, args)


if __name__ == "__main__":
    main()
