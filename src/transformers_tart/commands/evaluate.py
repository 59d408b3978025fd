"""`transformers-tart evaluate`: methods on tasks, with one backbone.

The processes of `accelerate launch`, on one machine or several, share the runs. Each has a file `results.N.jsonl` in
the folder of its machine.
"""

import argparse
import sys

from transformers_tart.commands.common import EVALUATION, add_shared, evaluation_options, join_processes
from transformers_tart.commands.inputs import add_column_options, named_columns


SUMMARY = "Measure TART and other methods on tasks; the same command continues where it was interrupted."
EXAMPLE = "--model EleutherAI/pythia-160m --task paper --methods tart logistic_regression --k 16 64 --output results"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_shared(parser, *EVALUATION)
    parser.add_argument(
        "--task", nargs="+", required=True, help="names (paper, raft, multiclass, or one of them), files or folders"
    )
    add_column_options(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["tart", "logistic_regression", "logistic_regression_cv", "majority"],
        help="by name; an unknown one lists them (default: %(default)s)",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--k",
        type=int,
        nargs="+",
        default=[16, 32, 64],
        help="sizes of the support sets, 0 for none (default: 16 32 64)",
    )
    sizes.add_argument(
        "--per-class",
        type=int,
        nargs="+",
        help="examples of each class, in place of --k; a rarer class gives all it has",
    )
    parser.add_argument("--seeds", type=int, default=5, help="support sets of each size (default: 5)")
    parser.add_argument("--sampling", choices=("balanced", "natural"), default="balanced", help="(default: balanced)")
    parser.add_argument("--max-test", type=int, help="most test texts of a task, drawn with a seed (default: all)")
    parser.add_argument("--max-prompt", type=int, help="longest prompt of the methods of prompting, in tokens")
    parser.add_argument(
        "--max-minutes",
        type=float,
        help="begin no run after this time, nor one that by its estimate ends later; each process makes one at least",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="folder of the results; processes of accelerate launch share the runs, on several machines too, and have "
        "a file results.N.jsonl each. If machines do not share the folder, copy their files into one for report",
    )


def run(args: argparse.Namespace) -> None:
    """Measure; under `accelerate launch` the processes share the work."""
    from transformers_tart.evaluation.methods.models import Models
    from transformers_tart.evaluation.plan import Plan, choose_seeds
    from transformers_tart.evaluation.runner import evaluate

    drawing = (choose_seeds(args.seeds), args.sampling, args.max_test)
    plan = Plan(args.task, args.methods, args.k, *drawing, per_class=args.per_class, columns=named_columns(args))
    state = join_processes(args.device)
    models = Models(**evaluation_options(args, state.device), max_prompt=args.max_prompt)
    try:
        outcome = evaluate(plan, models, args.output, args.max_minutes)
    finally:
        state.destroy_process_group()
    if not state.is_local_main_process:
        return
    if outcome.failed:
        print(f"{outcome.failed} runs have failed; the same command tries them again", file=sys.stderr)
    if outcome.left:
        print(f"{outcome.left} of {outcome.planned} runs left; the same command goes on", file=sys.stderr)
