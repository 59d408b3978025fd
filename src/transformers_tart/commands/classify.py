"""`transformers-tart classify`: a table of inputs in, labels and scores out row by row; a stopped run goes on."""

import argparse
import contextlib
import csv
import io
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm.auto import tqdm

from transformers_tart.commands.common import (
    add_model_options,
    add_subparser,
    load_pipeline,
    read_examples,
    stream_inputs,
)


FIELDS = ("row", "label", "score")
# Texts are sorted by length within this many batches of each process.
BATCHES_PER_WINDOW = 4
USUAL_BATCH_SIZE = 32  # of the windows where no batch size is given


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
        "--examples", help="labelled examples: csv, tsv, json, jsonl or parquet with text, image or audio, and label"
    )
    parser.add_argument(
        "--input",
        required=True,
        help="inputs: csv, tsv, json, jsonl or parquet with text, image or audio (paths), or txt by lines",
    )
    parser.add_argument(
        "--output", help="jsonl or csv; a file of an interrupted run is continued (default: jsonl to stdout)"
    )
    parser.add_argument("--batch-size", type=int, help="most inputs of a forward pass (default: by a token budget)")
    parser.add_argument("--overwrite", action="store_true", help="start the output file anew")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Classify; under `accelerate launch` the processes share the rows and the first one writes."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f"--batch-size is {args.batch_size}; it must be at least 1.")
    # without an accelerator, processes that are not told of the CPU would not find each other
    state = PartialState(cpu=args.device == "cpu" or not torch.accelerator.is_available())
    if state.num_processes > 1 and args.device is None and args.device_map is None:
        args.device_map = {"": state.device}  # each process on its own
    output = None if args.output is None else Path(args.output)
    if args.overwrite and output is not None and state.is_main_process:
        output.unlink(missing_ok=True)
    state.wait_for_everyone()
    done = 0 if output is None else finished_rows(output)
    state.wait_for_everyone()
    examples = None if args.examples is None else read_examples(args.examples)
    classify = load_pipeline(args, examples, embedding_cache=args.embedding_cache)
    if args.compile:
        classify.model.backbone.compile(dynamic=True)
    window = (args.batch_size or USUAL_BATCH_SIZE) * BATCHES_PER_WINDOW * state.num_processes
    modality = classify.model.config.modality
    fields = FIELDS if modality == "text" else (*FIELDS, "error")
    inputs = enumerate(stream_inputs(args.input, modality, skip=done), start=done)
    bar = tqdm(
        desc="classifying", unit=modality, initial=done, disable=not (state.is_main_process and sys.stderr.isatty())
    )
    with open_output(output, done, state.is_main_process, fields) as write, bar:
        while rows := list(itertools.islice(inputs, window)):
            with state.split_between_processes(rows) as mine:
                answers = classify([given for _, given in mine], batch_size=args.batch_size)
                records = [_record(row, answer) for (row, _), answer in zip(mine, answers, strict=True)]
            for record in gather_object(records):
                write(record)
            bar.update(len(rows))
    state.wait_for_everyone()
    state.destroy_process_group()  # a process that just ends may break the others' connections


def _record(row: int, answer: dict[str, Any]) -> dict[str, Any]:
    """A line of the output; what could not be read has no score, since JSON knows no NaN."""
    return {"row": row, **answer, "score": None if answer["label"] is None else answer["score"]}


def finished_rows(output: Path) -> int:
    """Complete rows of an output file; a half-written last one is cut off.

    Raises:
        ValueError: When the file is not the output of this command.
    """
    if not output.exists():
        return 0
    content = output.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    rows = _read_rows(output, complete.decode())
    if [str(row) for row in rows] != [str(i) for i in range(len(rows))]:
        raise ValueError(
            f"{output} is not an interrupted output of this command; choose another, or pass --overwrite."
        )
    if complete != content:
        output.write_bytes(complete)
    return len(rows)


def _read_rows(output: Path, content: str) -> list[Any]:
    try:
        if _is_csv(output):
            return [record["row"] for record in csv.DictReader(io.StringIO(content))]
        return [json.loads(line)["row"] for line in content.split("\n")[:-1]]
    except (ValueError, KeyError, TypeError):
        return [None]


def _is_csv(output: Path | None) -> bool:
    if output is None or output.suffix == ".jsonl":
        return False
    if output.suffix != ".csv":
        raise ValueError(f"{output} has the ending {output.suffix!r}; it must be .jsonl or .csv.")
    return True


@contextlib.contextmanager
def open_output(output: Path | None, done: int, writes: bool, fields: Sequence[str] = FIELDS) -> Iterator[Any]:
    """A function that writes one record and flushes it; it does nothing in processes that do not write."""
    if not writes:
        yield lambda record: None
        return
    as_csv = _is_csv(output)
    with contextlib.ExitStack() as stack:
        file: TextIO = (
            sys.stdout
            if output is None
            else stack.enter_context(open(output, "a", encoding="utf-8", newline="" if as_csv else None))
        )
        if as_csv:
            table = csv.DictWriter(file, fields)
            if done == 0 and output is not None and output.stat().st_size == 0:
                table.writeheader()

        def write(record: dict[str, Any]) -> None:
            if as_csv:
                table.writerow(record)
            else:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()

        yield write


__all__ = ["add_parser", "finished_rows", "run"]
