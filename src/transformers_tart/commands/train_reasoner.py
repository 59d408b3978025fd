"""`transformers-tart train-reasoner`: train a reasoner on synthetic tasks."""

import argparse
from dataclasses import replace

import torch

from transformers_tart.training.presets import PRESETS


REFERENCES = ("logistic_regression", "kernel_ridge")

SUMMARY = "Train a reasoner on synthetic tasks."
EXAMPLE = "--preset kernel --output reasoner/ --resume"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--output", required=True, help="folder for the reasoner and its checkpoint")
    summaries = "; ".join(f"{name}: {preset.summary}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="kernel", help=f"recipe (default: kernel). {summaries}")
    parser.add_argument("--max-steps", type=int, help="optimizer steps (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of every task (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the folder")
    parser.add_argument("--max-minutes", type=float, help="save and stop after this many minutes")
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), help="(default: that of accelerate)")
    parser.add_argument("--log-with", nargs="+", help="trackers of accelerate, for example tensorboard")
    parser.add_argument("--no-validation", action="store_true", help="skip validation")


def run(args: argparse.Namespace) -> None:
    """Train and save."""
    from transformers_tart.evaluation.methods.baselines import BASELINES
    from transformers_tart.reasoners.modeling_reasoner import TartReasoner
    from transformers_tart.training.trainer import train_reasoner
    from transformers_tart.training.validation import VALIDATION_SEED, Validation

    preset = PRESETS[args.preset]
    steps = args.max_steps or preset.arguments.max_steps
    arguments = replace(preset.arguments, seed=args.seed, max_steps=steps, mixed_precision=args.mixed_precision)
    validation = None
    if not args.no_validation:
        fixed = preset.tasks.validation(torch.Generator().manual_seed(VALIDATION_SEED))
        validation = Validation(fixed, {name: BASELINES[name] for name in REFERENCES})
    base = None if preset.base is None else TartReasoner.from_pretrained(preset.base)
    options = {name: vars(args)[name] for name in ("resume", "max_minutes", "log_with", "preset")}
    train_reasoner(
        preset.build_config(), args.output, arguments, preset.tasks, validation=validation, base=base, **options
    )
