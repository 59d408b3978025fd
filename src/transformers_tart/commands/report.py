"""`transformers-tart report`: tables, plots and a page of results."""

import argparse
import sys


# the keys of `evaluation.report.comparison.METRIC_FORMATS`, which is imported only when the command runs
METRIC_NAMES = ("accuracy", "macro_f1", "matthews_correlation", "log_loss", "brier_score", "calibration_error")

SUMMARY = "Compare methods by their results: tables, plots and pages in markdown and HTML."
EXAMPLE = "results --reference tart --metrics accuracy log_loss"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="folder with results.jsonl, or several results.*.jsonl; "
        "methods become method (model) if models share tasks",
    )
    parser.add_argument("--output", help="folder of the pages and the plots (default: DIR, if it is one)")
    parser.add_argument("--reference", help="method that the others are compared with (default: the first TART)")
    parser.add_argument("--metrics", nargs="+", choices=METRIC_NAMES, help="the first is plotted (default: all)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="tables alone, as without matplotlib")
    parser.add_argument(
        "--show-texts",
        nargs="+",
        metavar="TASK",
        default=[],
        help="tasks, as given to evaluate, whose most confidently wrong texts report.html shows (default: none)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the report, and print the tables of the first metric."""
    from transformers_tart.evaluation.records import load_measured, read_folders
    from transformers_tart.evaluation.report import Comparison, tables, write_report
    from transformers_tart.evaluation.report.plots import require_matplotlib

    if args.plots:
        try:
            require_matplotlib()
        except ImportError as err:
            args.plots = False
            print(f"{err} The report is written without plots, as with --no-plots.", file=sys.stderr)
    if len(args.folders) > 1 and args.output is None:
        raise ValueError("A report of several folders needs a folder of its own; name it with --output.")
    records = read_folders(args.folders)
    comparison = Comparison.of(records, args.reference, args.metrics)
    shown = load_measured(args.show_texts, args.folders, records)
    files = write_report(args.output or args.folders[0], comparison, args.plots, shown)
    metric = comparison.metrics[0]
    matched = comparison.match(metric)
    shown_tables = (each(matched, metric, comparison.size) for each in (tables.tabulate_tasks, tables.tabulate_means))
    print("\n\n".join(table.markdown() for table in shown_tables))
    print(tables.describe_matching(matched), file=sys.stderr)
    if failed := sum(record.error is not None for record in records):
        print(f"failed runs: {failed}, listed in the pages", file=sys.stderr)
    print(f"wrote {', '.join(file.name for file in files)}", file=sys.stderr)
