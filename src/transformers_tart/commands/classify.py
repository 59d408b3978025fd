"""`transformers-tart classify`: a table of inputs in, labels and scores out row by row; a stopped run goes on."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers_tart.commands.answers import Answer, Finished, cut_torn_row, is_csv, open_output, read_finished
from transformers_tart.commands.common import (
    add_model_options,
    add_subparser,
    check_columns,
    check_output_file,
    load_config,
    load_pipeline,
    modality_of,
    read_examples,
    stream_inputs,
)
from transformers_tart.commands.fingerprint import (
    check_fingerprint,
    fingerprint_of,
    remove_output,
    write_fingerprint,
)
from transformers_tart.inputs.tables import file_format, read_rows


if TYPE_CHECKING:
    from accelerate import PartialState

    from transformers_tart.pipeline_tart import TartClassificationPipeline

# Texts are sorted by length within this many batches of each process.
BATCHES_PER_WINDOW = 4
USUAL_BATCH_SIZE = 32  # of the windows where no batch size is given


class Row(NamedTuple):
    """An input, or `Unreadable` in its place, and its number in the file, from 0."""

    number: int
    given: Any


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "classify",
        "Classify the texts, images or audio of a table.",
        "transformers-tart classify --model EleutherAI/pythia-160m --examples train.csv --input new.csv --output "
        "out.jsonl",
    )
    add_model_options(parser)
    parser.add_argument("--embedding-cache", metavar="FOLDER", help="keep embeddings here from one run to the next")
    parser.add_argument("--compile", action="store_true", help="compile the backbone, which pays for many texts")
    parser.add_argument(
        "--examples", help="labeled examples: csv, tsv, json, jsonl or parquet with text, image or audio, and label"
    )
    parser.add_argument(
        "--input",
        required=True,
        help="inputs: csv, tsv, json, jsonl or parquet with text, image or audio (paths), or txt by lines",
    )
    parser.add_argument(
        "--output",
        help="jsonl or csv; an interrupted run of the same input, examples, model and options is continued, by a "
        "fingerprint in OUTPUT.fingerprint.json (default: jsonl to stdout)",
    )
    parser.add_argument("--batch-size", type=int, help="most inputs of a forward pass (default: by a token budget)")
    parser.add_argument("--overwrite", action="store_true", help="start the output file anew")
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first row that cannot be read (default: note its error)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Classify; under `accelerate launch` the processes share the rows and the first one writes."""
    import torch
    from accelerate import PartialState

    output = None if args.output is None else Path(args.output)
    _check_arguments(args, output)
    # without an accelerator, processes that are not told of the CPU would not find each other
    state = PartialState(cpu=args.device == "cpu" or not torch.accelerator.is_available())
    if state.num_processes > 1 and args.device is None and args.device_map is None:
        args.device_map = {"": state.device}  # each process on its own
    config = load_config(args)
    modality = modality_of(config)
    if args.examples is None and not getattr(config, "has_support", False):
        raise ValueError(
            f"{args.model} holds no support set; give labeled examples: --examples FILE, or the folder or Hub id of a "
            "saved task."
        )
    check_columns(args.input, [modality])
    if args.examples is not None:
        check_columns(args.examples, [modality, "label"])
    total = _count_rows(args.input) if state.is_main_process else None
    finished = Finished() if output is None else _prepare_output(args, output, config, modality, state)
    examples = None if args.examples is None else read_examples(args.examples)
    classify = load_pipeline(args, examples, config, embedding_cache=args.embedding_cache)
    if args.compile:
        classify.model.backbone.compile(dynamic=True)
    _classify(args, classify, output, finished, total, state)
    state.wait_for_everyone()
    state.destroy_process_group()  # a process that just ends may break the others' connections


def _check_arguments(args: argparse.Namespace, output: Path | None) -> None:
    """Check what can be checked before anything is loaded."""
    from transformers_tart.checks.templates import parse_template

    if args.template is not None:
        parse_template(args.template)
    check_columns(args.input, ["text", "image", "audio"], any_of_them=True)
    if args.examples is not None:
        check_columns(args.examples, ["label"])
    if output is not None:
        is_csv(output)
        check_output_file(output, apart_from=[path for path in (args.input, args.examples) if path is not None])


def _count_rows(path: str) -> int | None:
    """Count the rows of a table; damage is said at once, and stops the run after the rows before it."""
    if file_format(path) == "parquet":  # which may hold files, and is not damaged in a single row
        return None
    count = 0
    try:
        for _ in read_rows(path):
            count += 1
    except ValueError as err:
        print(
            f"classify: {err} The {count:,} rows before are classified first; mended, the file is another input.",
            file=sys.stderr,
        )
    return count


def _prepare_output(
    args: argparse.Namespace, output: Path, config: Any, modality: str, state: "PartialState"
) -> Finished:
    """Return what is finished of an output file, which has its fingerprint and no torn row then."""
    fingerprint, finished = fingerprint_of(args, config, modality), Finished()
    if not args.overwrite:
        check_fingerprint(output, fingerprint)
        finished = read_finished(output)
    state.wait_for_everyone()  # all have read it before the first one changes it
    if state.is_main_process:
        if args.overwrite:
            remove_output(output)
        write_fingerprint(output, fingerprint)
        cut_torn_row(output, finished)
    if args.strict and finished.bad:
        raise ValueError(f"{output} holds {finished.bad} rows that could not be read; --strict allows none.")
    return finished


def _classify(
    args: argparse.Namespace,
    classify: "TartClassificationPipeline",
    output: Path | None,
    finished: Finished,
    total: int | None,
    state: "PartialState",
) -> None:
    """Classify the rows that are not finished, window by window, and count them on stderr in the end."""
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

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
                    found = gather_object(_answer(classify, mine, args.batch_size))
                answers = [answer for answer in found if answer["row"] >= done]
                first_bad = next((i for i, answer in enumerate(answers) if "error" in answer), None)
                allowed = answers[:first_bad] if args.strict else answers
                if is_main:
                    write(allowed)
                written += len(allowed)
                bad += sum("error" in answer for answer in allowed)
                bar.update(len(allowed))
                if args.strict and first_bad is not None:
                    raise ValueError(f"{args.input}: {answers[first_bad]['error']} (--strict)")
        finally:
            if is_main:
                print(_count(done, written, bad), file=sys.stderr)


def _count(done: int, written: int, bad: int) -> str:
    """Return the closing line."""
    without = f"; {bad:,} in all could not be read and have an error in place of a label" if bad else ""
    return f"classify: {done:,} rows were finished before, {written:,} were written now{without}"


def _windows(path: str, modality: str, skip: int, size: int) -> Iterator[list[Row]]:
    """Yield rows in lists; where the file is damaged, the rows before come first and then the error."""
    window: list[Row] = []
    inputs = enumerate(stream_inputs(path, modality, skip), start=skip)
    damage = None
    while damage is None:
        try:
            window.append(Row(*next(inputs)))
        except StopIteration:
            break
        except (ValueError, OSError) as err:
            damage = err
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
    if damage is not None:
        raise damage


def _answer(classify: "TartClassificationPipeline", rows: Sequence[Row], batch_size: int | None) -> list[Answer]:
    """Return an answer for each row, with an error in place of the label where it could not be read."""
    from transformers_tart.embeddings.text import Unreadable

    readable = [row for row in rows if not isinstance(row.given, Unreadable)]
    found = iter(enumerate(classify([row.given for row in readable], batch_size=batch_size)) if readable else ())
    answers: list[Answer] = []
    for number, given in rows:
        if isinstance(given, Unreadable):
            answers.append({"row": number, "label": None, "score": None, "error": str(given.error)})
            continue
        place, answer = next(found)
        if answer["label"] is None:  # JSON knows no NaN; the pipeline counts from the start of the window
            answer |= {"score": None, "error": answer["error"].replace(f"Input {place}", f"Row {number}", 1)}
        answers.append({"row": number, **answer})
    return answers


__all__ = ["add_parser", "run"]
