"""Measures views of encoders, images and audio: accuracy in % (log loss) of each view alone, and of mixtures.

    python views_media.py FOLDER/minilm DATA/text/sst2.jsonl.gz DATA/text/trec6.jsonl.gz --mixtures sentence+mean

Texts are files of rows {"text", "label", "split"}, images and recordings npz files of "image", or "audio", "length"
and "rate", with "label" and "split". Support sets are drawn from the first train rows. Queries are the other train
rows or, with --test, the first test rows. Embeddings are kept in the folder --cache.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

from transformers_tart import (
    TartForAudioClassification,
    TartForImageClassification,
    TartForSequenceClassification,
    TartReasoner,
)
from transformers_tart.embeddings.views import split_views
from transformers_tart.evaluation.methods.baselines import BASELINES
from transformers_tart.inputs.examples import parse_examples
from transformers_tart.projection import LayerScaling
from transformers_tart.reasoners.mixing import mix, weigh_views


KINDS = {
    "text": (TartForSequenceClassification, AutoTokenizer, {"max_length": 64}),
    "image": (TartForImageClassification, AutoImageProcessor, {}),
    "audio": (TartForAudioClassification, AutoFeatureExtractor, {}),
}
FLOOR = 1e-4  # least probability in a log loss
LAST = "mean_final"  # the view of the logistic regressions


def read_rows(path: Path, split: str, count: int) -> tuple[str, list[dict[str, Any]]]:
    """The modality of a file, and the first rows of a split."""
    if path.suffix != ".npz":
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return "text", [row for row in map(json.loads, file) if row["split"] == split][:count]
    found = np.load(path)
    places = np.flatnonzero(found["split"] == split)[:count]
    if "image" in found:
        return "image", [{"image": found["image"][i], "label": str(found["label"][i])} for i in places]
    rate, audio = int(found["rate"]), found["audio"]
    sounds = [{"array": audio[i, : found["length"][i]], "sampling_rate": rate} for i in places]
    return "audio", [
        {"audio": sound, "label": str(found["label"][i])} for sound, i in zip(sounds, places, strict=True)
    ]


def embed(args: argparse.Namespace, path: Path, split: str, count: int) -> tuple[dict[str, Tensor], list[str]]:
    """The embeddings (n, layers, hidden) of each view, and the labels."""
    kind, rows = read_rows(path, split, count)
    model_class, processor_class, options = KINDS[kind]
    labels, kept = [str(row["label"]) for row in rows], None
    if args.cache is not None:
        name = ".".join((args.model.name, path.name.split(".")[0], split, str(len(rows)), *args.views))
        kept = args.cache / f"{name}.pt"
        if kept.exists():
            return torch.load(kept), labels
    model = model_class.from_backbone(args.model, views=args.views, dtype=getattr(torch, args.dtype), **options)
    given = parse_examples(
        [{kind: row[kind], "label": label} for row, label in zip(rows, labels, strict=True)], model.config.modality
    )
    processor = processor_class.from_pretrained(args.model)
    embeddings = model.embedder().embed_examples(given, processor, batch_size=args.batch_size).embeddings
    found = dict(zip(args.views, split_views(embeddings.float(), model.config.views), strict=True))
    if kept is not None:
        torch.save(found, kept)
    return found, labels


def draw(labels: Tensor, size: int, seeds: int, queries: int) -> tuple[Tensor, Tensor]:
    """Support sets (seeds, k) of `size` rows of each class, and other rows; a class gives at most two thirds."""
    supports, others = [], []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(1000 * size + seed)
        mixed = torch.randperm(len(labels), generator=generator)
        members = [mixed[labels[mixed] == label] for label in labels.unique()]
        chosen = torch.cat([each[: min(size, 2 * len(each) // 3 if queries else len(each))] for each in members])
        supports.append(chosen[torch.randperm(len(chosen), generator=generator)])
        others.append(mixed[~torch.isin(mixed, chosen)][:queries])
    return torch.stack(supports), torch.stack(others)


def score(logits: Tensor, labels: Tensor) -> list[float]:
    """Accuracy in % and log loss of predictions (seeds, n, classes)."""
    log_p = logits.log_softmax(-1).clamp(min=np.log(FLOOR)).log_softmax(-1)
    return [
        100 * float((logits.argmax(-1) == labels).float().mean()),
        -float(log_p.gather(-1, labels[..., None]).mean()),
    ]


def read(
    reasoner: TartReasoner, support: Tensor, labels: Tensor, query: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Logits (seeds, n, classes) and leave-one-out log-likelihoods (seeds,) of one view."""
    scalings = [LayerScaling.fit(each) for each in support]
    support, query = (
        torch.stack([scaling.transform(each) for scaling, each in zip(scalings, given, strict=True)])
        for given in (support, query)
    )
    state = reasoner.prepare([support], labels, classes)
    return reasoner.query(state, [query]), state.views[0].log_likelihood


def measure(args: argparse.Namespace, reasoner: TartReasoner, path: Path) -> dict[str, dict[str, list[float]]]:
    """Scores of each view, mixture and logistic regression, by the size of the support set."""
    views, names = embed(args, path, "train", args.rows)
    tests, test_names = embed(args, path, "test", args.test) if args.test else (views, names)
    classes = sorted({*names})
    labels, test_labels = (torch.tensor([classes.index(name) for name in each]) for each in (names, test_names))
    found: dict[str, dict[str, list[float]]] = {}
    for size in args.sizes:
        chosen, others = draw(labels, size, args.seeds, 0 if args.test else 120)
        asked = torch.arange(len(test_labels)).expand(args.seeds, -1) if args.test else others
        targets, answers = test_labels[asked], {}
        for name in args.views:
            answers[name] = read(reasoner, views[name][chosen], labels[chosen], tests[name][asked], len(classes))
            found.setdefault(name, {})[str(size)] = score(answers[name][0], targets)
        for mixture in args.mixtures:
            logits, evidence = zip(*(answers[name] for name in mixture.split("+")), strict=True)
            weights = weigh_views(torch.stack(evidence), chosen.shape[1])
            found.setdefault(mixture, {})[str(size)] = score(mix(logits, weights.unbind()), targets)
        for name in args.baselines:
            last, query = views[LAST].flatten(1), tests[LAST].flatten(1)
            fitted = [
                BASELINES[name](last[s], labels[s], query[q], len(classes)) for s, q in zip(chosen, asked, strict=True)
            ]
            found.setdefault(name, {})[str(size)] = score(torch.stack(fitted).clamp(min=1e-9).log().float(), targets)
    return found


def main() -> None:
    """Print a table for each data set and, with several, of their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--views", nargs="+", default=["sentence", "mean", "early_mean"])
    parser.add_argument("--mixtures", nargs="*", default=[])
    parser.add_argument("--baselines", nargs="*", default=[], choices=BASELINES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--test", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reasoner, every = TartReasoner.from_pretrained("kernel").eval(), {}
    for path in args.data:
        with torch.inference_mode():
            every[path.name.split(".")[0]] = measure(args, reasoner, path)
        if args.json is not None:
            args.json.write_text(json.dumps(every, indent=1), encoding="utf-8")
        show(path.name, [every[path.name.split(".")[0]]], args.sizes)
    if len(every) > 1:
        show("mean", list(every.values()), args.sizes)


def show(title: str, found: list[dict[str, dict[str, list[float]]]], sizes: list[int]) -> None:
    """Print the means of several data sets as a table."""
    print(f"\n| {title} | {' | '.join(map(str, sizes))} |\n|---|{'---|' * len(sizes)}")
    for name in found[0]:
        pairs = [np.mean([each[name][str(size)] for each in found], axis=0) for size in sizes]
        print(f"| {name} | {' | '.join(f'{accuracy:.1f} ({loss:.3f})' for accuracy, loss in pairs)} |", flush=True)


if __name__ == "__main__":
    main()
