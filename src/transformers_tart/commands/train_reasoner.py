"""`transformers-tart train-reasoner`: train a reasoner on synthetic tasks."""

import argparse
from dataclasses import replace
from typing import Any

from transformers_tart.commands.common import add_subparser
from transformers_tart.training.presets import PRESETS


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "train-reasoner",
        "Train a reasoner on synthetic tasks.",
        "transformers-tart train-reasoner --preset kernel --output reasoner/ --resume",
    )
    parser.add_argument("--output", required=True, help="folder for the reasoner and its checkpoint")
    summaries = "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    parser.add_argument(
        "--preset", choices=PRESETS, default="kernel", help=f"what to train (default: kernel). {summaries}"
    )
    parser.add_argument("--max-steps", type=int, help="optimiser steps (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of every task (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    parser.add_argument("--max-minutes", type=float, help="save and stop after this time, to resume later")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    from transformers_tart.training.trainer import train_reasoner

    if args.max_steps is not None and args.max_steps < 1:
        raise ValueError(f"--max-steps is {args.max_steps}; it must be at least 1.")
    preset = PRESETS[args.preset]
    arguments = replace(preset.arguments, seed=args.seed, max_steps=args.max_steps or preset.arguments.max_steps)
    train_reasoner(
        preset.build_config(), args.output, arguments, preset.tasks, resume=args.resume, max_minutes=args.max_minutes
    )


__all__ = ["add_parser", "run"]
