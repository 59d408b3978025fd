"""`transformers-tart evaluate-reasoner`: measure a reasoner and baselines on saved embeddings."""

import argparse
import platform
from pathlib import Path
from typing import Any

from transformers_tart.commands.common import add_subparser, check_output_file
from transformers_tart.repository import DEFAULT_REASONER


# those of `evaluation`, which is imported only when the command runs
BASELINES = (
    "logistic_regression",
    "logistic_regression_cv",
    "linear_discriminant",
    "nearest_centroid",
    "nearest_neighbours",
    "kernel_ridge",
)
METRICS = ("accuracy", "log_loss", "brier_score", "calibration_error")


def add_parser(subparsers: Any) -> None:
    """Add the parser of the command."""
    parser = add_subparser(
        subparsers,
        "evaluate-reasoner",
        "Measure a reasoner and baselines on saved embeddings.",
        "transformers-tart evaluate-reasoner embeddings/*.safetensors --k 16 64 256 --output report.json",
    )
    parser.add_argument("files", nargs="+", help="safetensors files with `embeddings` and `labels`")
    parser.add_argument("--reasoner", default=DEFAULT_REASONER, help="kernel, a folder or a Hub id (default: kernel)")
    parser.add_argument("--train-rows", type=int, help="leading rows for support sets (default: those of the file)")
    parser.add_argument("--k", type=int, nargs="+", default=[16, 64, 256], help="sizes of the support sets")
    parser.add_argument("--per-class", type=int, nargs="+", help="examples of each class, for more than two classes")
    parser.add_argument("--seeds", type=int, default=5, help="number of support sets of each size (default: 5)")
    parser.add_argument(
        "--baselines", nargs="*", choices=BASELINES, default=list(BASELINES), help="other methods (default: all)"
    )
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS), help="(default: all)")
    parser.add_argument("--device", default="cpu", help="device of the reasoner (default: cpu)")
    parser.add_argument("--output", help="JSON file for the measurements, written after each data set")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, and print a table for each metric."""
    import torch
    from tqdm.auto import tqdm
    from transformers import __version__ as transformers_version

    from transformers_tart.evaluation.methods import baselines
    from transformers_tart.evaluation.tasks import embedded as report
    from transformers_tart.files import write_whole
    from transformers_tart.reasoners.modeling_reasoner import TartReasoner

    if min([*(args.per_class or ()), args.seeds]) < 1 or min(args.k) < 2:
        raise ValueError("--k must be at least 2, --per-class and --seeds at least 1.")
    if args.output is not None:
        check_output_file(Path(args.output), inputs=args.files)
    tasks = [report.EmbeddedTask.load(path, args.train_rows) for path in args.files]
    reasoner = TartReasoner.from_pretrained(args.reasoner).to(args.device).eval()
    methods = {
        report.REASONER: report.reasoner_predictor(reasoner),
        **{name: baselines.BASELINES[name] for name in args.baselines},
    }
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


__all__ = ["add_parser", "run"]
