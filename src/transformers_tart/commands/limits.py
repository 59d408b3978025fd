"""Options for answers that are withheld or given as label sets, as in a call of the pipeline."""

import argparse
from typing import Any

from transformers_tart.answers.limits import OPTIONS, limit_options
from transformers_tart.checks.arguments import as_share


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    group = parser.add_argument_group("answers that are withheld, and label sets")
    group.add_argument(
        "--abstain-below", type=_share, metavar="P", help="leave the label empty where its probability is below P"
    )
    group.add_argument(
        "--out-of-scope",
        action="store_true",
        default=None,
        help="write how far each input is out of scope: the share of the examples that are closer to the others than "
        "it is to all of them, from 0 to 1",
    )
    group.add_argument(
        "--reject-above", type=_share, metavar="SHARE", help="leave the label empty where out_of_scope is above SHARE"
    )
    group.add_argument(
        "--coverage",
        type=_share,
        metavar="SHARE",
        help="write the labels that cannot be excluded too, as lists named labels and scores, which hold the true "
        "label in about this share of inputs like the examples, such as 0.9",
    )


def _share(given: str) -> float:
    try:
        return as_share(float(given), "it")
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 0 to 1") from err


def limit_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as arguments of the pipeline, as far as they are given, checked before a model is loaded."""
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    names = {name: f"--{name.replace('_', '-')}" for name in given}
    if "coverage" in given and args.top_k is not None:
        raise ValueError("--coverage and --top-k both set which labels are listed; give one of them.")
    needy = sorted(set(given) - {"abstain_below"})
    if needy and args.examples is None and args.candidate_labels is not None:
        raise ValueError(f"{names[needy[0]]} compares inputs with examples; give --examples, or leave it out.")
    return limit_options(given)


__all__ = ["add_limit_options", "limit_arguments"]
