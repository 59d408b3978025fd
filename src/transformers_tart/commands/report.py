"""`transformers-tart report`: tables, plots and a page of results."""

import argparse
import sys


# the keys of `evaluation.report.comparison.METRIC_FORMATS`, which is imported only when the command runs
METRIC_NAMES = ("accuracy", "macro_f1", "matthews_correlation", "log_loss", "brier_score", "calibration_error")

SUMMARY = "Compare methods by their results: tables, plots and a page."
EXAMPLE = "results --reference tart --metrics accuracy log_loss"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("folder", metavar="DIR", help="folder with results.jsonl, or several results.*.jsonl")
    parser.add_argument("--output", help="folder of the page and the plots (default: DIR)")
    parser.add_argument("--reference", help="method that the others are compared with (default: the first TART)")
    parser.add_argument("--metrics", nargs="+", choices=METRIC_NAMES, help="the first is plotted (default: all)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="tables alone, without matplotlib")


def run(args: argparse.Namespace) -> None:
    """Write the report, and print the tables of the first metric."""
    from transformers_tart.evaluation.records import read_records
    from transformers_tart.evaluation.report import Comparison, tables, write_report
    from transformers_tart.evaluation.report.plots import require_matplotlib

    if args.plots:
        try:
            require_matplotlib()
        except ImportError as err:
            raise ValueError(f"{err} Or leave the plots out with --no-plots.") from err
    records = read_records(args.folder)
    if not records:
        raise ValueError(f"There are no results in {args.folder}: no results.jsonl or results.*.jsonl with a run.")
    comparison = Comparison.of(records, args.reference, args.metrics)
    files = write_report(args.output or args.folder, comparison, args.plots)
    metric = comparison.metrics[0]
    matched = comparison.match(metric)
    shown = (matched, metric, comparison.size)
    print(tables.format_tasks(*shown), tables.format_means(*shown), sep="\n\n")
    print(tables.describe_matching(matched), file=sys.stderr)
    if failed := sum(record.error is not None for record in records):
        print(f"failed runs: {failed}, listed in the page", file=sys.stderr)
    print(f"wrote {', '.join(file.name for file in files)}", file=sys.stderr)
