"""`transformers-tart diagnose`: the diagnosis of TART on a task."""

import argparse

from tqdm.auto import tqdm

from transformers_tart.bench.machine import default_device
from transformers_tart.commands.common import EVALUATION, add_shared, evaluation_options
from transformers_tart.commands.inputs import add_column_options, named_columns
from transformers_tart.files import write_whole


SUMMARY = "Find what limits TART on a task: the representation, the reasoner, the examples or a shift from training."
EXAMPLE = "--model EleutherAI/pythia-160m --task examples.csv --k 64 --json diagnosis.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_shared(parser, *EVALUATION, "--json")
    parser.add_argument("--task", required=True, help="name, file or folder of the task")
    add_column_options(parser)
    parser.add_argument("--k", type=int, default=64, help="size of the support sets (default: 64)")
    parser.add_argument("--seeds", type=int, default=3, help="support sets (default: 3)")
    parser.add_argument(
        "--layers", type=int, nargs="+", help="hidden states to try alone (default: all that are read)"
    )
    parser.add_argument("--max-test", type=int, default=500, help="most test texts (default: 500)")
    parser.add_argument("--tasks", type=int, default=100, help="synthetic tasks of each kind (default: 100)")
    parser.add_argument("--no-fine-tuning", action="store_true", help="skip fine-tuning, the slowest method")


def run(args: argparse.Namespace) -> None:
    """Diagnose, and print a page."""
    from transformers_tart.evaluation.diagnosis import as_json, diagnose, format_diagnosis
    from transformers_tart.evaluation.diagnosis.gaps import FINE_TUNING, PROBE, PROMPTING, TART
    from transformers_tart.evaluation.methods.base import TaskContext
    from transformers_tart.evaluation.methods.models import Models
    from transformers_tart.evaluation.methods.registry import METHODS
    from transformers_tart.evaluation.plan import choose_seeds
    from transformers_tart.evaluation.tasks import load_task

    seeds = choose_seeds(args.seeds)
    models = Models(**evaluation_options(args, default_device()))
    context = TaskContext(load_task(args.task, args.max_test, columns=named_columns(args)), models)
    names = [FINE_TUNING, PROBE, TART, PROMPTING][args.no_fine_tuning :]
    with tqdm(desc="diagnosing", unit="step") as bar:

        def show(step: str) -> None:
            bar.set_postfix_str(step, refresh=False)
            bar.update()

        found = diagnose(
            context,
            args.k,
            seeds,
            methods={name: METHODS[name] for name in names if name in METHODS},
            layers=args.layers,
            num_tasks=args.tasks,
            progress=show,
        )
    if args.json is not None:
        write_whole(args.json, as_json(found))
    print(format_diagnosis(found), end="")
