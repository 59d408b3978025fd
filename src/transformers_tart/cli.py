"""The `transformers-tart` command: data on stdout, messages on stderr; exit codes 0, 1 (failure) and 2 (usage)."""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

from transformers.utils import logging

from transformers_tart import __version__
from transformers_tart.commands.common import check_options
from transformers_tart.errors import SHOWN


COMMANDS = (
    *("demo", "classify", "ui", "export", "convert", "push"),
    *("train-reasoner", "evaluate", "evaluate-reasoner", "report", "diagnose", "bench"),
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="transformers-tart", description="Few-shot classification with a frozen model, without training."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True)
    for name in COMMANDS:
        command = import_module(f"transformers_tart.commands.{name.replace('-', '_')}")
        parser_of_command = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=f"example:\n  transformers-tart {name} {command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(parser_of_command)
        parser_of_command.set_defaults(run=command.run)
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
    except SHOWN as err:
        message = _name_options(" ".join(str(err).split()), vars(args))
        print(f"transformers-tart {args.command}: {message}", file=sys.stderr)
        return 1
    return 0


def _name_options(message: str, options: Collection[str]) -> str:
    """Return a message in which arguments of functions, such as `batch_size`, are options: `--batch-size`.

    Names of one word are ordinary words too, and count before an equals sign alone.
    """
    if "hints" in options:
        message = message.replace("hints=None", "--no-hints")
    for name in options:
        end = "(=?)" if "_" in name else "(=)"
        pattern = rf"(?<![\w/.'\"-]){name}{end}(?![\w/'-]|\.\w)"
        option = f"--{name.replace('_', '-')}"
        message = re.sub(pattern, lambda found: option + " " * len(found[1]), message)  # noqa: B023 (called at once)
    return message


__all__ = ["build_parser", "main"]
