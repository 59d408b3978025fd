"""`transformers-tart classify`: predict labels and scores of a table's rows; an interrupted run can be continued."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tqdm.auto import tqdm

from transformers_tart.commands.classes import FILES, add_class_options, check_classes, class_arguments
from transformers_tart.commands.common import (
    LOADING,
    add_shared,
    check_columns,
    check_output_file,
    check_template,
    join_processes,
    load_config,
    load_pipeline,
    modality_of,
    read_examples,
    stream_inputs,
)
from transformers_tart.commands.output import (
    Finished,
    OutputRow,
    check_fingerprint,
    cut_torn_row,
    fingerprint_file,
    fingerprint_of,
    is_csv,
    lock_output,
    open_output,
    read_finished,
)
from transformers_tart.embeddings.text import Unreadable
from transformers_tart.files import write_whole
from transformers_tart.inputs.tables import file_format, read_rows
from transformers_tart.pipeline_tart import TartClassificationPipeline


if TYPE_CHECKING:
    from accelerate import PartialState

BATCHES_PER_WINDOW = 4  # of each process; inputs are sorted by length within a window
USUAL_BATCH_SIZE = 32  # sets the size of windows where no batch size is given
Row: TypeAlias = tuple[int, Any]  # the number of a row in the file, from 0, and its input or `Unreadable`

SUMMARY = "Classify the texts, images or audio of a table."
EXAMPLE = "--model EleutherAI/pythia-160m --examples train.csv --input new.csv --output out.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_shared(parser, *LOADING, "--batch-size")
    parser.add_argument("--embedding-cache", metavar="FOLDER", help="folder to keep embeddings in for later runs")
    parser.add_argument("--compile", action="store_true", help="compile the backbone; worthwhile for many inputs")
    parser.add_argument(
        "--examples",
        help="labeled examples: csv, tsv, json, jsonl or parquet with the columns text, image or audio, and label "
        "(default: those of the model)",
    )
    add_class_options(parser)
    parser.add_argument(
        "--input",
        required=True,
        help="inputs: csv, tsv, json, jsonl or parquet with a column text, image or audio (paths), or a txt file with "
        "an input in each line",
    )
    parser.add_argument(
        "--output",
        help="jsonl or csv file; the same command continues an interrupted run, which it recognizes by "
        "OUTPUT.fingerprint.json (default: jsonl to stdout)",
    )
    parser.add_argument("--overwrite", action="store_true", help="start the output file anew")
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable row (default: write its error)")


def run(args: argparse.Namespace) -> None:
    """Classify; under `accelerate launch` the processes share the rows and the first one writes."""
    state, output = join_processes(args.device), None if args.output is None else Path(args.output)
    if state.num_processes > 1 and args.device is None and args.device_map is None:
        args.device_map = {"": state.device}
    config = load_config(args)
    modality = _check_arguments(args, config, output)
    total = _count_rows(args.input) if state.is_main_process else None
    with contextlib.ExitStack() as stack:
        if output is not None and state.is_main_process:
            stack.enter_context(lock_output(output))
        finished = Finished() if output is None else _prepare_output(args, output, config, modality, state)
        examples = None if args.examples is None else read_examples(args.examples)
        classes = class_arguments(args, modality)
        classify = load_pipeline(args, config, examples, embedding_cache=args.embedding_cache, **classes)
        if args.compile:
            classify.model.backbone.compile(dynamic=True)
        _classify(args, classify, output, finished, total, state)
    state.wait_for_everyone()
    state.destroy_process_group()  # ending without may break the connections of other processes


def _check_arguments(args: argparse.Namespace, config: Any, output: Path | None) -> str:
    """Check the arguments before a model is loaded, and return its modality."""
    modality = modality_of(config)
    check_template(args)
    check_classes(args, modality)
    if args.examples is None and args.candidate_labels is None and not getattr(config, "has_support", False):
        remedy = (
            "give labeled examples: --examples FILE, or the names of the classes: --candidate-labels a,b, or the "
            "folder or Hub id of a saved task."
        )
        raise ValueError(f"{args.model} holds no support set; {remedy}")
    check_columns(args.input, [modality])
    if args.examples is not None:
        check_columns(args.examples, [modality, "label"])
    if output is not None:
        is_csv(output)
        check_output_file(output, [args.input, args.examples, *(vars(args)[name] for name in FILES)])
    return modality


def _count_rows(path: str) -> int | None:
    """Count the rows of a table, up to damage, which is reported at once and raised after the rows before it."""
    if file_format(path) == "parquet":  # may hold large files, and is not damaged in single rows
        return None
    count = 0
    try:
        for _ in read_rows(path):
            count += 1
    except ValueError as err:
        rest = f"The {count:,} rows before are classified first; mended, the file is another input."
        print(f"classify: {err} {rest}", file=sys.stderr)
    return count


def _prepare_output(
    args: argparse.Namespace, output: Path, config: Any, modality: str, state: "PartialState"
) -> Finished:
    """Return the finished part of an output file, after writing its fingerprint and cutting a torn row."""
    fingerprint, finished = fingerprint_of(args, config, modality), Finished()
    if not args.overwrite:
        check_fingerprint(output, fingerprint)
        finished = read_finished(output)
    state.wait_for_everyone()  # all processes read the file before the first one changes it
    if state.is_main_process:
        if args.overwrite:
            os.truncate(output, 0)  # first, as rows must not stand beside another fingerprint
        write_whole(fingerprint_file(output), json.dumps(fingerprint, indent=1) + "\n")
        cut_torn_row(output, finished)
    if args.strict and finished.bad:
        raise ValueError(f"{output} holds {finished.bad} rows that could not be read; --strict allows none.")
    return finished


def _classify(
    args: argparse.Namespace,
    classify: TartClassificationPipeline,
    output: Path | None,
    finished: Finished,
    total: int | None,
    state: "PartialState",
) -> None:
    """Classify the remaining rows window by window, and print their number to stderr in the end."""
    from accelerate.utils import gather_object

    modality, is_main = classify.model.config.modality, state.is_main_process
    size = (args.batch_size or USUAL_BATCH_SIZE) * BATCHES_PER_WINDOW * state.num_processes
    written, bad, done = 0, finished.bad, finished.rows
    is_quiet = not (is_main and sys.stderr.isatty())
    bar = tqdm(desc="classifying", unit=modality, initial=done, total=total, disable=is_quiet)
    with open_output(output if is_main else None) as write, bar:
        try:
            # a window that was written in part is computed again as a whole: other batches change the last digits
            for window in _windows(args.input, modality, done - done % size, size):
                with state.split_between_processes(window) as mine:
                    found = gather_object(_predict(classify, mine, args.batch_size))
                rows = [row for row in found if row["row"] >= done]
                first_bad = next((i for i, row in enumerate(rows) if "error" in row), None)
                allowed = rows[:first_bad] if args.strict else rows
                if is_main:
                    write(allowed)
                written += len(allowed)
                bad += sum("error" in row for row in allowed)
                bar.update(len(allowed))
                if args.strict and first_bad is not None:
                    raise ValueError(f"{args.input}: {rows[first_bad]['error']} (--strict)")
        finally:
            if is_main:
                without = f"; {bad:,} in all could not be read and have an error in place of a label" if bad else ""
                counts = f"{done:,} rows were finished before, {written:,} were written now{without}"
                print(f"classify: {counts}", file=sys.stderr)


def _windows(path: str, modality: str, skip: int, size: int) -> Iterator[list[Row]]:
    """Yield rows in lists; in a damaged file, the rows before the damage come first and then the error."""
    window: list[Row] = []
    try:
        for row in enumerate(stream_inputs(path, modality, skip), start=skip):
            window.append(row)
            if len(window) == size:
                yield window
                window = []
    except (ValueError, OSError):
        if window:
            yield window
        raise
    if window:
        yield window


def _predict(classify: TartClassificationPipeline, rows: Sequence[Row], batch_size: int | None) -> list[OutputRow]:
    """Return a prediction for each row, with an error in place of the label where the row is unreadable."""
    readable = [given for _, given in rows if not isinstance(given, Unreadable)]
    # with top_k the format is the same without examples
    found = iter(enumerate(classify(readable, batch_size=batch_size, top_k=1)) if readable else ())
    predictions: list[OutputRow] = []
    for number, given in rows:
        if isinstance(given, Unreadable):
            predictions.append({"row": number, "label": None, "score": None, "error": str(given.error)})
            continue
        place, (prediction,) = next(found)
        if prediction["label"] is None:  # JSON has no NaN, and the pipeline counts inputs within the window
            error = prediction["error"].replace(f"Input {place}", f"Row {number}", 1)
            prediction |= {"score": None, "error": error}
        predictions.append({"row": number, **prediction})
    return predictions
