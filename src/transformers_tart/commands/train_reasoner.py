"""`transformers-tart train-reasoner`: train a reasoner on synthetic tasks."""

import argparse
from typing import Any

from transformers_tart.commands.common import add_subparser
from transformers_tart.configuration_tart import TartReasonerConfig


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "train-reasoner",
        "Train a kernel reasoner on synthetic tasks.",
        "transformers-tart train-reasoner --output reasoner/ --max-steps 12000",
    )
    parser.add_argument("--output", required=True, help="folder for the reasoner")
    parser.add_argument("--max-steps", type=int, default=12_000, help="optimiser steps (default: 12000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of every task (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    parser.add_argument("--max-minutes", type=float, help="save and stop after this time, to resume later")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    from transformers_tart.training.trainer import ReasonerTrainingArguments, train_reasoner

    if args.max_steps < 1:
        raise ValueError(f"--max-steps is {args.max_steps}; it must be at least 1.")
    arguments = ReasonerTrainingArguments(max_steps=args.max_steps, seed=args.seed)
    train_reasoner(TartReasonerConfig(), args.output, arguments, resume=args.resume, max_minutes=args.max_minutes)


__all__ = ["add_parser", "run"]
