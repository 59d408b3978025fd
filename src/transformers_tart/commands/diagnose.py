"""The diagnosis of TART on a task: `transformers-tart diagnose`."""

import argparse
from typing import Any

from transformers_tart.commands.common import DTYPES, add_subparser


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "diagnose",
        "Find what limits TART on a task: the representation, the reasoner, the examples or a shift from training.",
        "transformers-tart diagnose --model EleutherAI/pythia-160m --task examples.csv --k 64 --json diagnosis.json",
    )
    parser.add_argument(
        "--model", required=True, help="Hub id or folder of a TART repository or of any backbone, or mini"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument("--task", required=True, help="name, file or folder of the task")
    parser.add_argument("--reasoner", help="of a backbone: kernel, a folder or a Hub id (default: kernel)")
    parser.add_argument("--k", type=int, default=64, help="size of the support sets (default: 64)")
    parser.add_argument("--seeds", type=int, default=3, help="support sets (default: 3)")
    parser.add_argument("--layers", type=int, nargs="+", help="hidden states to try alone (default: each)")
    parser.add_argument("--max-test", type=int, default=500, help="most test texts (default: 500)")
    parser.add_argument("--tasks", type=int, default=100, help="synthetic tasks of each kind (default: 100)")
    parser.add_argument("--no-fine-tuning", action="store_true", help="skip fine-tuning, the slowest method")
    parser.add_argument("--max-length", type=int, help="longest text in tokens (default: the model's own limit)")
    parser.add_argument("--batch-size", type=int, help="most texts of a forward pass (default: by a token budget)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="precision of the backbone (default: auto)")
    parser.add_argument("--device", help="where to run (default: the first accelerator)")
    parser.add_argument("--json", metavar="FILE", help="write every number to a JSON file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Diagnose, and print a page."""
    import torch
    from tqdm.auto import tqdm

    from transformers_tart.evaluation.diagnosis import as_json, diagnose, format_diagnosis
    from transformers_tart.evaluation.diagnosis.gaps import FINE_TUNING, PROBE, PROMPTING, TART
    from transformers_tart.evaluation.methods.base import TaskContext
    from transformers_tart.evaluation.methods.models import Models
    from transformers_tart.evaluation.methods.registry import METHODS
    from transformers_tart.evaluation.runner import choose_seeds
    from transformers_tart.evaluation.tasks import load_task
    from transformers_tart.files import write_whole

    seeds = choose_seeds(args.seeds)
    default_device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    device = torch.device(default_device if args.device is None else args.device)
    source = (args.model, args.revision, args.reasoner)
    models = Models(*source, args.dtype, device, args.batch_size, args.max_length)
    context = TaskContext(load_task(args.task, args.max_test), models)
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


__all__ = ["add_parser", "run"]
