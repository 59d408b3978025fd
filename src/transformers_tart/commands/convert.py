"""`transformers-tart convert`: convert a published checkpoint to a reasoner."""

import argparse
import sys

from transformers_tart.conversion import convert_reference_checkpoint


SUMMARY = "Convert a checkpoint of the published TART code to a reasoner."
EXAMPLE = "--checkpoint model.pt --config config.json --output reasoner/"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--checkpoint", required=True, help="published .pt file")
    sizes = "JSON file with n_dims, n_positions, n_embd, n_head and n_layer"
    parser.add_argument("--config", required=True, help=sizes)
    parser.add_argument("--output", required=True, help="folder for the reasoner")


def run(args: argparse.Namespace) -> None:
    """Convert and save."""
    reasoner = convert_reference_checkpoint(args.checkpoint, args.config)
    reasoner.save_pretrained(args.output)
    print(f"saved a reasoner of {reasoner.num_parameters():,} parameters", file=sys.stderr)
