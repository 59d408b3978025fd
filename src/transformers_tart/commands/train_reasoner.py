"""`transformers-tart train-reasoner`: train a reasoner on synthetic tasks."""

import argparse
from dataclasses import replace
from typing import Any

from transformers_tart.commands.common import add_subparser
from transformers_tart.training.presets import PRESETS


REFERENCES = ("logistic_regression", "kernel_ridge")


def add_parser(subparsers: Any) -> None:
    """Add the parser of the command."""
    parser = add_subparser(
        subparsers,
        "train-reasoner",
        "Train a reasoner on synthetic tasks.",
        "transformers-tart train-reasoner --preset kernel --output reasoner/ --resume",
    )
    parser.add_argument("--output", required=True, help="folder for the reasoner and its checkpoint")
    summaries = "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="kernel", help=f"recipe (default: kernel). {summaries}")
    parser.add_argument("--max-steps", type=int, help="optimizer steps (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of every task (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the folder")
    parser.add_argument("--max-minutes", type=float, help="save and stop after this many minutes")
    parser.add_argument(
        "--mixed-precision",
        choices=("no", "bf16"),
        help="(default: that of accelerate)",
    )
    parser.add_argument("--log-with", nargs="+", help="trackers of accelerate, for example tensorboard")
    parser.add_argument("--no-validation", action="store_true", help="skip validation")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    import torch

    from transformers_tart.evaluation.methods.baselines import BASELINES
    from transformers_tart.training.trainer import train_reasoner
    from transformers_tart.training.validation import VALIDATION_SEED, Validation

    preset = PRESETS[args.preset]
    steps = args.max_steps or preset.arguments.max_steps
    arguments = replace(preset.arguments, seed=args.seed, max_steps=steps, mixed_precision=args.mixed_precision)
    validation = None
    if not args.no_validation:
        fixed = preset.tasks.validation(torch.Generator().manual_seed(VALIDATION_SEED))
        validation = Validation(fixed, {name: BASELINES[name] for name in REFERENCES})
    train_reasoner(
        preset.build_config(),
        args.output,
        arguments,
        preset.tasks,
        validation=validation,
        resume=args.resume,
        max_minutes=args.max_minutes,
        log_with=args.log_with,
        preset=args.preset,
    )


__all__ = ["add_parser", "run"]
