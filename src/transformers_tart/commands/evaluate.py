"""`transformers-tart evaluate`: methods on tasks, with one backbone."""

import argparse
import sys
from typing import Any

from transformers_tart.commands.common import DTYPES, add_subparser, join_processes


def add_parser(subparsers: Any) -> None:
    """Add the parser of the command."""
    parser = add_subparser(
        subparsers,
        "evaluate",
        "Measure TART and other methods on tasks; the same command continues where it was interrupted.",
        "transformers-tart evaluate --model EleutherAI/pythia-160m --task paper --methods tart logistic_regression "
        "--k 16 64 --output results",
    )
    parser.add_argument(
        "--model", required=True, help="Hub id or folder of a TART repository or of any backbone, or mini"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument("--reasoner", help="of a backbone: kernel, a folder or a Hub id (default: kernel)")
    parser.add_argument(
        "--task", nargs="+", required=True, help="names (paper, raft, multiclass, or one of them), files or folders"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["tart", "logistic_regression", "logistic_regression_cv", "majority"],
        help="by name; an unknown one lists them (default: %(default)s)",
    )
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64], help="sizes of the support sets")
    parser.add_argument("--seeds", type=int, default=5, help="support sets of each size (default: 5)")
    parser.add_argument("--sampling", choices=("balanced", "natural"), default="balanced", help="of support sets")
    parser.add_argument("--max-test", type=int, help="most test texts of a task, drawn with a seed (default: all)")
    parser.add_argument("--max-length", type=int, help="longest text in tokens (default: the model's own limit)")
    parser.add_argument("--batch-size", type=int, help="most texts of a forward pass (default: by a token budget)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="precision of the backbone (default: auto)")
    parser.add_argument("--device", help="where to run (default: the first accelerator)")
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure; under `accelerate launch` the processes share the work."""
    import torch

    from transformers_tart.evaluation.methods.models import Models
    from transformers_tart.evaluation.runner import Plan, choose_seeds, evaluate

    plan = Plan(args.task, args.methods, args.k, choose_seeds(args.seeds), args.sampling, args.max_test)
    state = join_processes(args.device)
    models = Models(
        args.model,
        args.revision,
        args.reasoner,
        args.dtype,
        state.device if args.device is None else torch.device(args.device),
        args.batch_size,
        args.max_length,
    )
    try:
        failed = evaluate(plan, models, args.output)
    finally:
        state.destroy_process_group()
    if failed and state.is_main_process:
        print(f"{failed} runs have failed; the same command tries them again", file=sys.stderr)


__all__ = ["add_parser", "run"]
