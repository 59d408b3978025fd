"""`transformers-tart classify`: predict labels and scores of a table's rows; an interrupted run can be continued."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers.utils import logging

from transformers_tart.checks.progress import show_progress
from transformers_tart.commands import classes, common, inputs
from transformers_tart.commands.output import (
    FIELDS,
    FORMATS,
    LISTS,
    SCOPE,
    Finished,
    Output,
    OutputRow,
    fingerprint_file,
    fingerprint_of,
)
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.files import locked, write_whole
from transformers_tart.inputs.tables import Row, read_rows
from transformers_tart.pipeline_tart import TartClassificationPipeline


if TYPE_CHECKING:
    from accelerate import PartialState

BATCHES_PER_WINDOW = 4  # of each process; inputs are sorted by length within a window
USUAL_BATCH_SIZE = 32  # sets the size of windows where no batch size is given
ALL = "all"
Given: TypeAlias = tuple[int, Any]  # the number of a row in the file, from 0, and its input or `Unreadable`

SUMMARY = "Classify the texts, images or audio of a table."
EXAMPLE = "--model EleutherAI/pythia-160m --examples train.csv --input new.csv --output out.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    common.add_shared(parser, *common.LOADING, "--batch-size")
    parser.add_argument("--embedding-cache", metavar="FOLDER", help="folder to keep embeddings in for later runs")
    parser.add_argument("--compile", action="store_true", help="compile the backbone; worthwhile for many inputs")
    parser.add_argument(
        "--examples",
        help="labeled examples: csv, tsv, json, jsonl or parquet with the columns text, image or audio, and label, in "
        "json and parquet perhaps a list of labels (default: those of the model)",
    )
    inputs.add_column_options(parser)
    classes.add_class_options(parser)
    classes.add_limit_options(parser)
    parser.add_argument(
        "--input",
        required=True,
        help="inputs: csv, tsv, json, jsonl or parquet with a column text, image or audio (paths), a txt file with an "
        "input in each line, or - for stdin, which is read to its end first",
    )
    parser.add_argument(
        "--input-format", choices=inputs.STDIN_FORMATS, help="format of stdin (default: txt, an input in each line)"
    )
    parser.add_argument(
        "--output",
        help="jsonl, csv or parquet file; the same command continues an interrupted run, which it recognizes by "
        "OUTPUT.fingerprint.json; parquet is written in the end, from OUTPUT.part.jsonl (default: jsonl to stdout)",
    )
    parser.add_argument(
        "--keep-columns",
        action="store_true",
        help="write the columns of the input too; one named row, label, score, labels, scores or error becomes "
        "input_row and so on",
    )
    parser.add_argument(
        "--top-k",
        type=_top_k,
        metavar="N",
        help="write the N best classes too, or all, as lists named labels and scores, the best first",
    )
    parser.add_argument("--overwrite", action="store_true", help="start the output file anew")
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable row (default: write its error)")


def _top_k(given: str) -> int | str:
    if given == ALL or (given.isdecimal() and int(given) > 0):
        return given if given == ALL else int(given)
    raise argparse.ArgumentTypeError(f'{given!r} is neither a number of classes, at least 1, nor "{ALL}"')


def run(args: argparse.Namespace) -> None:
    """Classify; under `accelerate launch` the processes share the rows and the first one writes."""
    state = common.join_processes(args.device)
    if state.num_processes > 1 and args.device is None and args.device_map is None:
        args.device_map = {"": state.device}
    if args.input == inputs.STDIN and state.num_processes > 1:
        raise ValueError("--input is -, but several processes cannot share stdin; write it to a file.")
    if args.input_format is not None and args.input != inputs.STDIN:
        raise ValueError(f"--input-format is for --input -; the format of {args.input} is that of its ending.")
    config = common.load_config(args)
    with inputs.opened(args) as (path, folder):
        table = _check_arguments(args, config, path, folder)
        _run(args, config, table, state)
    state.wait_for_everyone()
    state.destroy_process_group()  # ending without may break the connections of other processes


def _run(args: argparse.Namespace, config: Any, table: inputs.InputTable, state: "PartialState") -> None:
    total, columns = table.survey() if state.is_main_process or args.keep_columns else (None, [])
    scope = [SCOPE] if args.out_of_scope or args.reject_above is not None else []
    fields = (*FIELDS, *(LISTS if args.top_k or args.coverage else ()), *scope)
    kept = inputs.names_of_kept(columns, (*FIELDS, *LISTS, SCOPE)) if args.keep_columns else {}
    output = Output(None if args.output is None else Path(args.output), (*fields, *kept.values()))
    if output.is_parquet:
        from transformers_tart.commands.parquet import schema_of, write_parquet

        schema = schema_of(table.path, kept)
    elif kept:
        inputs.check_keepable(table.path)
    with contextlib.ExitStack() as stack:
        if output.path is not None and state.is_main_process:
            output.work.touch()
            try:
                stack.enter_context(locked(output.work, wait=False))
            except BlockingIOError as err:
                raise ValueError(
                    f"Another process is writing to {output.work}; wait for it, or give another file."
                ) from err
        finished = Finished() if output.path is None else _prepare_output(args, output, config, table, state)
        if args.examples is not None:
            inputs.check_rows(args.examples)
        task = classes.class_arguments(args, table.modality)
        classify = common.load_pipeline(args, config, args.examples, embedding_cache=args.embedding_cache, **task)
        if args.compile:
            classify.model.backbone.compile(dynamic=True)
        _classify(args, classify, table, kept, output, finished, total, state)
        if output.is_parquet and state.is_main_process:
            rows = show_progress(read_rows(table.path), "writing", "row")
            own = ({kept[name]: row.get(name) for name in kept} for row in rows)
            write_parquet(output, schema, own)


def _check_arguments(args: argparse.Namespace, config: Any, path: str, folder: Path | None) -> inputs.InputTable:
    """Check the arguments before a model is loaded, and return the table of the inputs."""
    modality = common.modality_of(config)
    common.check_template(args)
    classes.check_classes(args, modality)
    classes.limit_arguments(args)
    if args.examples is None and args.candidate_labels is None and not getattr(config, "has_support", False):
        remedy = (
            "give labeled examples: --examples FILE, or the names of the classes: --candidate-labels a,b, or the "
            "folder or Hub id of a saved task."
        )
        raise ValueError(f"{args.model} holds no support set; {remedy}")
    table = inputs.InputTable.of(args, path, modality, folder)
    if args.examples is not None:
        inputs.check_examples(args, modality)
    if args.output is not None:
        output = Path(args.output)
        if output.suffix not in FORMATS:
            raise ValueError(f"{output} has the ending {output.suffix!r}; it must be one of {', '.join(FORMATS)}.")
        common.check_output_file(output, [path, args.examples, *(vars(args)[name] for name in classes.FILES)])
    return table


def _prepare_output(
    args: argparse.Namespace, output: Output, config: Any, table: inputs.InputTable, state: "PartialState"
) -> Finished:
    """Return the finished part of an output file, after writing its fingerprint and cutting a torn row."""
    fingerprint, finished = fingerprint_of(args, config, table), Finished()
    if not args.overwrite:
        output.check_fingerprint(fingerprint)
        finished = output.read_finished()
    state.wait_for_everyone()  # all processes read the file before the first one changes it
    if state.is_main_process and output.path is not None:
        if args.overwrite:  # first, as rows must not stand beside another fingerprint
            if output.is_parquet:
                output.path.unlink(missing_ok=True)
            os.truncate(output.work, 0)
        write_whole(fingerprint_file(output.path), json.dumps(fingerprint, indent=1) + "\n")
        output.cut_torn_row(finished)
    if args.strict and finished.bad:
        raise ValueError(f"{output.path} holds {finished.bad} rows that could not be read; --strict allows none.")
    return finished


def _classify(
    args: argparse.Namespace,
    classify: TartClassificationPipeline,
    table: inputs.InputTable,
    kept: dict[str, str],
    output: Output,
    finished: Finished,
    total: int | None,
    state: "PartialState",
) -> None:
    """Classify the remaining rows window by window, and print their number to stderr in the end."""
    from accelerate.utils import gather_object

    is_main, done = state.is_main_process, finished.rows
    size = (args.batch_size or USUAL_BATCH_SIZE) * BATCHES_PER_WINDOW * state.num_processes
    written, bad, is_quiet = 0, 0, not (is_main and sys.stderr.isatty())
    bar = logging.tqdm(desc="classifying", unit=table.modality, initial=done, total=total, disable=is_quiet)
    with (output if is_main else Output(None)).open() as write, bar:
        place = "stdout" if output.path is None else output.work
        try:
            # a window that was written in part is computed again as a whole: other batches change the last digits
            for window in _windows(table, done - done % size, size):
                with state.split_between_processes([given for given, _ in window]) as mine:
                    found = gather_object(_predict(classify, mine, args))
                pairs = zip(found, (row for _, row in window), strict=True)
                rows = [
                    own | {kept[name]: inputs.as_json(value) for name, value in row.items() if name in kept}
                    for own, row in pairs
                    if own["row"] >= done
                ]
                first_bad = next((i for i, row in enumerate(rows) if row["score"] is None), None)
                allowed = rows[:first_bad] if args.strict else rows
                if is_main:
                    write(allowed)
                written += len(allowed)
                bad += sum(row["score"] is None for row in allowed)
                bar.update(len(allowed))
                if args.strict and first_bad is not None:
                    raise ValueError(f"{table.path}: {rows[first_bad]['error']} (--strict)")
            place = output.path or place
        finally:
            if is_main:
                before = f"; {done:,} rows were finished before" if done else ""
                print(f"classify: wrote {written:,} rows to {place}, {bad:,} with errors{before}", file=sys.stderr)


def _windows(table: inputs.InputTable, skip: int, size: int) -> Iterator[list[tuple[Given, Row]]]:
    """Yield rows in lists; in a damaged file, the rows before the damage come first and then the error."""
    window: list[tuple[Given, Row]] = []
    try:
        for number, (given, row) in enumerate(table.inputs(skip), start=skip):
            window.append(((number, given), row))
            if len(window) == size:
                yield window
                window = []
    except (ValueError, OSError):
        if window:
            yield window
        raise
    if window:
        yield window


def _predict(classify: TartClassificationPipeline, rows: Sequence[Given], args: argparse.Namespace) -> list[OutputRow]:
    """Return a prediction for each row, with an error in place of the label where the row is unreadable."""
    readable = [given for _, given in rows if not isinstance(given, Unreadable)]
    # with top_k the format is the same without examples
    most = {} if args.coverage else {"top_k": None if args.top_k == ALL else args.top_k or 1}
    options = {"batch_size": args.batch_size, **most, **classes.limit_arguments(args)}
    found = iter(enumerate(classify(readable, **options)) if readable else ())
    predictions: list[OutputRow] = []
    for number, given in rows:
        if isinstance(given, Unreadable):
            predictions.append({"row": number, "label": None, "score": None, "error": str(given.error)})
            continue
        place, ranked = next(found)
        prediction, listed = dict(ranked[0]), [each for each in ranked if each["label"] is not None]
        if "error" in prediction:  # JSON has no NaN, and the pipeline counts inputs within the window
            error = prediction["error"].replace(f"Input {place}", f"Row {number}", 1)
            prediction |= {"score": None, "error": error}
        elif args.top_k is not None or args.coverage:
            prediction |= {"labels": [each["label"] for each in listed], "scores": [each["score"] for each in listed]}
        predictions.append({"row": number, **prediction})
    return predictions
