"""The `transformers-tart` command: data on stdout, messages on stderr; exit codes 0, 1 (failure) and 2 (usage)."""

import argparse
import sys
from collections.abc import Sequence

from transformers.utils import logging

from transformers_tart import __version__
from transformers_tart.commands import (
    bench,
    classify,
    convert,
    demo,
    diagnose,
    evaluate,
    evaluate_reasoner,
    push,
    report,
    train_reasoner,
)
from transformers_tart.commands.common import check_options


COMMANDS = (demo, classify, convert, push, train_reasoner, evaluate, evaluate_reasoner, report, diagnose, bench)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="transformers-tart", description="Few-shot classification with a frozen model, without training."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    args = build_parser().parse_args(argv)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        check_options(args)
        args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of stdout has closed it
        return 1
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as err:
        print(f"transformers-tart {args.command}: {' '.join(str(err).split())}", file=sys.stderr)
        return 1
    return 0


__all__ = ["build_parser", "main"]
