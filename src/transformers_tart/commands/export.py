"""`transformers-tart export`: export a fitted task to ONNX or `torch.export`."""

import argparse
import sys

from transformers_tart.commands.classes import add_class_options, load_fitted
from transformers_tart.commands.common import LOADING, add_shared, load_config
from transformers_tart.commands.inputs import add_column_options


SUMMARY = "Export a task fitted to examples to ONNX or torch.export, for use without this package."
EXAMPLE = "--model HuggingFaceTB/SmolLM2-135M --examples train.csv --format onnx --output exported"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_shared(parser, *LOADING)
    parser.add_argument("--examples", help="labeled examples: csv, tsv, json, jsonl or parquet (default: the task's)")
    add_column_options(parser)
    add_class_options(parser)
    parser.add_argument(
        "--format", choices=("onnx", "torch"), default="onnx", help="format of the program (default: onnx)"
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write")


def run(args: argparse.Namespace) -> None:
    """Export a task, and print the file of the program."""
    from transformers_tart.export import export_task

    print(export_task(load_fitted(args, load_config(args)), args.output, args.format))
    print(f"wrote {args.output}, whose README.md shows how to use it", file=sys.stderr)
