"""`transformers-tart evaluate-reasoner`: measure a reasoner and baselines on saved embeddings."""

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import __version__ as transformers_version

from transformers_tart.commands.common import check_output_file, one_of
from transformers_tart.files import write_whole
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import DEFAULT_REASONER


# those of `evaluation`, which is imported only when the command runs
METRICS = ("accuracy", "log_loss", "brier_score", "calibration_error")

SUMMARY = "Measure a reasoner and baselines on saved embeddings."
EXAMPLE = "embeddings/*.safetensors --k 16 64 256 --output report.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "files",
        nargs="+",
        help="safetensors files with `labels` and `embeddings`, or `embeddings.0`, `embeddings.1`, ... of several "
        "views, and perhaps `hints` (rows, hints, classes)",
    )
    parser.add_argument("--reasoner", default=DEFAULT_REASONER, help="kernel, a folder or a Hub id (default: kernel)")
    parser.add_argument("--train-rows", type=int, help="leading rows for support sets (default: those of the file)")
    parser.add_argument("--k", type=int, nargs="+", help="sizes of the support sets (default: 16 64 256)")
    parser.add_argument(
        "--per-class",
        type=int,
        nargs="+",
        help="examples of each class, from 0 with hints; beside --k, for more than two classes alone",
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of support sets of each size (default: 5)")
    parser.add_argument(
        "--baselines",
        nargs="*",
        type=one_of("evaluation.methods.baselines", "BASELINES"),
        metavar="NAME",
        help="other methods by name; an unknown one lists them (default: all)",
    )
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS), help="(default: all)")
    parser.add_argument("--device", default="cpu", help="device of the reasoner (default: cpu)")
    parser.add_argument("--output", help="JSON file for the measurements, written after each data set")


def run(args: argparse.Namespace) -> None:
    """Measure, and print a table for each metric."""
    from transformers_tart.evaluation.methods.baselines import BASELINES
    from transformers_tart.evaluation.tasks import embedded as report

    if args.k is None and args.per_class is None:
        args.k = [16, 64, 256]
    least = 0 if args.k is None else 1
    if min(args.per_class or [least]) < least or args.seeds < 1 or min(args.k or [2]) < 2:
        raise ValueError("--k must be at least 2, --seeds 1, and --per-class 1 beside --k, else 0.")
    names = list(BASELINES) if args.baselines is None else args.baselines
    if args.output is not None:
        check_output_file(Path(args.output), inputs=args.files)
    tasks = [report.EmbeddedTask.load(path, args.train_rows) for path in args.files]
    reasoner = TartReasoner.from_pretrained(args.reasoner).to(args.device).eval()
    methods: dict[str, Any] = {report.REASONER: report.ReasonerPredictor(reasoner)}
    if any(task.hints is not None for task in tasks):
        methods[report.WITHOUT_HINTS] = report.ReasonerPredictor(reasoner, reads_hints=False)
    methods |= {name: BASELINES[name] for name in names}
    facts: dict[str, object] = {
        "reasoner": Path(args.reasoner).name,
        "versions": {"torch": torch.__version__, "transformers": transformers_version},
        "machine": platform.processor() or platform.machine(),
    }
    measurements: list[report.Measurement] = []
    for task in tqdm(tasks, desc="measuring", unit="data set"):
        sizes = report.choose_sizes(task, args.k, args.per_class)
        measurements += report.measure_task(task, methods, sizes, range(args.seeds))
        if args.output is not None:
            write_whole(args.output, report.as_json(measurements, facts))
    print("\n\n".join(report.format_table(measurements, metric) for metric in args.metrics))
