"""`transformers-tart convert`: convert a published checkpoint to a reasoner."""

import argparse
import sys
from typing import Any

from transformers_tart.commands.common import add_subparser


def add_parser(subparsers: Any) -> None:
    """Add the parser of the command."""
    parser = add_subparser(
        subparsers,
        "convert",
        "Convert a checkpoint of the published TART code to a reasoner.",
        "transformers-tart convert --checkpoint model.pt --config config.json --output reasoner/",
    )
    parser.add_argument("--checkpoint", required=True, help="published .pt file")
    parser.add_argument(
        "--config", required=True, help="JSON file with n_dims, n_positions, n_embd, n_head and n_layer"
    )
    parser.add_argument("--output", required=True, help="folder for the reasoner")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert and save."""
    from transformers_tart.conversion import convert_reference_checkpoint

    reasoner = convert_reference_checkpoint(args.checkpoint, args.config)
    reasoner.save_pretrained(args.output)
    print(f"saved a reasoner of {reasoner.num_parameters():,} parameters", file=sys.stderr)


__all__ = ["add_parser", "run"]
