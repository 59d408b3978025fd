"""Compare a reasoner with a former one on one view, check its symmetries, and time it with views and hints.

    python hints_checks.py --former FOLDER --embeddings DATA/embeddings/*.safetensors
    python hints_checks.py --time --backbone FOLDER/smollm2-135m

Without options the symmetries alone are checked: the largest change of a logit when examples, views, hints, classes or
the dimensions of embeddings change their order.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from transformers_tart import TartForSequenceClassification, TartReasoner
from transformers_tart.backbones.reference import load_processor
from transformers_tart.evaluation.tasks.embedded import EmbeddedTask, ReasonerPredictor, choose_sizes, measure_task
from transformers_tart.inputs.examples import Examples


SIZES, PER_CLASS = (16, 64, 256), (4, 8, 16)


def compare(args: argparse.Namespace, reasoner: TartReasoner) -> None:
    """Print accuracy minus that of the former reasoner, and the ratio of log losses, of each set and on average."""
    former = TartReasoner.from_pretrained(args.former).eval()
    methods = {"reasoner": ReasonerPredictor(reasoner, False), "former": ReasonerPredictor(former, False)}
    rows = []
    for path in args.embeddings:
        task = EmbeddedTask.load(path)
        found = list(measure_task(task, methods, list(choose_sizes(task, SIZES, PER_CLASS)), range(args.seeds)))
        own, other = (
            [mean(m.metrics[metric] for m in found if m.method == name) for metric in ("accuracy", "log_loss")]
            for name in methods
        )
        rows.append((100 * (own[0] - other[0]), own[1] / other[1]))
        print(f"{task.name}: accuracy {rows[-1][0]:+.2f} points, log loss {rows[-1][1]:.4f} times", flush=True)
    print(
        f"mean: accuracy {mean(row[0] for row in rows):+.3f} points, log loss {mean(row[1] for row in rows):.4f} times"
    )


def draw(k: int, queries: int, dims: list[int], hints: int, classes: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return views (k + queries, dim) of the same points, labels (k,), and hints (k + queries, hints, classes)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(k + queries) % classes
    views = []
    for dim in dims:
        centers = torch.randn(classes, dim, generator=generator)
        views.append(0.3 * centers[labels] + torch.randn(k + queries, dim, generator=generator))
    noise = torch.randn(k + queries, hints, classes, generator=generator)
    return views, labels[:k], torch.nn.functional.one_hot(labels, classes)[:, None] + noise


def answer(reasoner: TartReasoner, views: list[Tensor], labels: Tensor, hints: Tensor | None, classes: int) -> Tensor:
    """Return logits (n, classes) less their means."""
    k = len(labels)
    known, asked = [view[None, :k] for view in views], [view[None, k:] for view in views]
    given, own = ({}, []) if hints is None else ({"support_hints": hints[None, :k]}, [hints[None, k:]])
    state = reasoner.prepare(known, labels[None], num_labels=classes, **given)
    logits = reasoner.query(state, asked, *own)[0]
    return logits - logits.mean(-1, keepdim=True)


def check_symmetries(reasoner: TartReasoner) -> None:
    """Print the largest change of a logit for each symmetry."""
    for k, classes in ((3, 3), (24, 3), (100, 5)):
        views, labels, hints = draw(k, 50, [40, 60, 80], 2, classes)
        expected = answer(reasoner, views, labels, hints, classes)
        order = torch.randperm(k)
        mixed = torch.cat([order, torch.arange(k, k + 50)])
        place, columns = torch.randperm(classes), [torch.randperm(view.shape[1]) for view in views]
        changed = {
            "examples": answer(reasoner, [view[mixed] for view in views], labels[order], hints[mixed], classes),
            "views": answer(reasoner, views[::-1], labels, hints, classes),
            "hints": answer(reasoner, views, labels, hints.flip(1), classes),
            "classes": answer(reasoner, views, place[labels], hints[..., place.argsort()], classes)[:, place],
            "dimensions": answer(
                reasoner, [view[:, each] for view, each in zip(views, columns, strict=True)], labels, hints, classes
            ),
        }
        found = ", ".join(f"{name} {float((each - expected).abs().max()):.1e}" for name, each in changed.items())
        print(f"{k} examples, {classes} classes: {found}", flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_time(args: argparse.Namespace, reasoner: TartReasoner) -> None:
    """Print the time with three views and two hints over that of one view, and the share of the backbone's."""
    views, labels, hints = draw(args.k, args.queries, [args.dim] * 3, 2, args.classes)
    works = {
        "one view": lambda: answer(reasoner, views[:1], labels, None, args.classes),
        "three views, two hints": lambda: answer(reasoner, views, labels, hints, args.classes),
    }
    rounds = [{name: seconds_of(work) for name, work in works.items()} for _ in range(args.rounds)]
    spent = {name: median(each[name] for each in rounds) for name in works}
    one, all_views = spent.values()
    print(
        f"k={args.k}, {args.queries} queries: one view {one:.3f} s, with views and hints {all_views / one:.2f} times"
    )
    if args.backbone is not None:
        model = TartForSequenceClassification.from_backbone(args.backbone, max_length=64).eval()
        text = " ".join(f"word{i}" for i in range(20))
        examples = Examples([f"{text} {i}" for i in range(100)], [i % 2 for i in range(100)], ("a", "b"))
        tokenizer, embedder = load_processor(model), model.embedder()
        embedding = median(seconds_of(lambda: embedder.embed_examples(examples, tokenizer)) for _ in range(3)) / 100
        share = all_views / (all_views + (args.queries + args.k) * embedding)
        print(f"{1000 * embedding:.1f} ms a text in {args.backbone.name}: the reasoner takes {share:.2%} of the whole")


def main() -> None:
    """Check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reasoner", default="kernel", help="name, folder or Hub id")
    parser.add_argument("--former", help="folder of the reasoner to compare with")
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[], help="files for `evaluate-reasoner`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--backbone", type=Path, help="folder of the backbone whose share is measured")
    for name, value in (("k", 256), ("queries", 1000), ("dim", 576), ("classes", 2), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    reasoner = TartReasoner.from_pretrained(args.reasoner).eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        if args.former is not None:
            compare(args, reasoner)
        elif args.time:
            measure_time(args, reasoner)
        else:
            check_symmetries(reasoner)


if __name__ == "__main__":
    main()
