"""Code that several commands share: options that load a model, tables, and checks before anything is loaded.

Commands import heavy packages when they run, so that `--help` is fast.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.checks.arguments import as_source, check_device
from transformers_tart.inputs.tables import file_format, open_table, read_columns, read_rows


if TYPE_CHECKING:
    from accelerate import PartialState
    from datasets import IterableDataset
    from transformers import PreTrainedConfig

    from transformers_tart.pipeline_tart import TartClassificationPipeline

DTYPES = ("auto", "float32", "bfloat16", "float16")
TEXT = "text"
COUNTS = ("batch_size", "max_length", "max_steps", "max_test", "queries", "repeats", "seeds", "tasks")


def add_subparser(subparsers: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Add the parser of a command, whose help ends with an example."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options that name a model and control how it is loaded."""
    from transformers_tart.configuration_tart import PROTOCOLS

    parser.add_argument(
        "--model", required=required, help="Hub id or folder of a TART repository or of any backbone, or mini"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument("--token", help="access token for the Hub (default: the stored one)")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="precision of the backbone (default: auto)")
    parser.add_argument("--device", help="device, for example cpu or cuda:1 (default: the first accelerator)")
    parser.add_argument("--device-map", help='"auto" spreads the backbone over all devices')
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="stream embeds each text alone; vanilla and loo embed it after a prompt of the examples (default: the "
        "model's, or stream)",
    )
    parser.add_argument(
        "--template",
        help='template of an example in a prompt, with real line breaks (default: "Sentence: {text}" and "Label: '
        '{label}" on two lines)',
    )


def load_config(args: argparse.Namespace) -> "PreTrainedConfig":
    """Load the config of the model in the options."""
    from transformers_tart.backbones.reference import BackboneReference
    from transformers_tart.loading.auto import find_model

    try:
        reference = BackboneReference.of(args.model, args.revision)
        return find_model(reference.path, **reference.place, token=args.token).config
    except OSError as err:
        reason = str(err).removeprefix(f"{args.model} cannot be loaded: ")
        raise OSError(f'The model "{args.model}" cannot be loaded: {reason}') from err


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the precision and device map in the options as arguments of `from_pretrained`."""
    import torch

    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    return {"dtype": dtype} if args.device_map is None else {"dtype": dtype, "device_map": args.device_map}


def load_pipeline(
    args: argparse.Namespace, config: "PreTrainedConfig", examples: Any = None, embedding_cache: str | None = None
) -> "TartClassificationPipeline":
    """Load the pipeline of the model in the options; `config` is the result of [`load_config`]."""
    from transformers_tart.backbones.reference import BackboneReference
    from transformers_tart.modeling_tart import PipelineModel
    from transformers_tart.pipeline_tart import TartClassificationPipeline

    reference = BackboneReference.of(args.model, args.revision)
    hub = {**reference.place, "token": args.token}
    chosen = {"protocol": args.protocol, "template": args.template}
    embedding = {name: value for name, value in chosen.items() if value is not None}
    model = PipelineModel.from_pretrained(reference.path, config=config, **hub, **embedding, **loading_options(args))
    return TartClassificationPipeline(
        model=model, examples=examples, device=args.device, embedding_cache=embedding_cache
    )


def join_processes(device: str | None) -> "PartialState":
    """Join the processes of `accelerate launch`, which do not find each other without an accelerator otherwise."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())


def check_options(args: argparse.Namespace) -> None:
    """Check options that are the same in every command: models, devices, numbers and JSON files."""
    options = vars(args)
    if options.get("model") is not None:
        as_source(options["model"], "--model")
    check_device(options.get("device"))
    for name in COUNTS:
        value = options.get(name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if options.get("json") is not None:
        check_output_file(Path(options["json"]))


def check_columns(path: str, columns: Sequence[str]) -> None:
    """Check that a table can be read and has some columns, unless it has neither header nor rows."""
    found = read_columns(path)
    if found is None or (file_format(path) == "text" and "label" not in columns):  # lines may be texts or paths
        return
    if missing := [name for name in columns if name not in found]:
        raise ValueError(f"{path} has the columns {sorted(found)}; it needs a column {' and '.join(missing)}.")


def check_output_file(output: Path, inputs: Sequence[str | None] = ()) -> None:
    """Check that a file can be written and is not an input."""
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give a file.")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {output.parent} for {output.name}; make it, or give another.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise ValueError(f"{output} cannot be written; change its permissions, or give another file.")
    if any(path is not None and output.exists() and output.samefile(path) for path in inputs):
        raise ValueError(f"{output} is read and cannot be written at the same time; give another file.")


def read_examples(path: str) -> "IterableDataset":
    """Open a file of labeled examples: columns `text` and perhaps `text_pair`, `image` or `audio`, and `label`."""
    from datasets import Audio, Image

    columns = read_columns(path)
    if columns is None:
        raise ValueError(f"{path} is empty; it must hold the columns text (or image, or audio) and label.")
    for _ in read_rows(path):  # finds damage before a model is loaded
        pass
    table = open_table(path)
    for kind, column in ((Image, "image"), (Audio, "audio")):
        feature = (table.features or {}).get(column)
        if isinstance(feature, kind):
            table = table.cast_column(column, kind(decode=False))
        elif column in columns:
            table = table.map(lambda row, name=column: {name: _beside(path, row[name])})
    return table


def stream_inputs(path: str, modality: str = TEXT, skip: int = 0) -> Iterator[Any]:
    """Yield the inputs of a file lazily, after the first `skip`: texts or text pairs, images or audio.

    An unreadable row yields `Unreadable` with the error, which has the number of the row in the file, from 0. The
    error of a damaged file is raised after the rows before the damage.
    """
    from transformers_tart.embeddings.text import Unreadable

    column = TEXT if file_format(path) == "text" else modality  # the lines of a text file may be paths
    for number, row in enumerate(read_rows(path)):
        if number < skip:
            continue
        try:
            yield _input_of(path, row, column, modality, f"Row {number}")
        except (ValueError, TypeError) as err:
            yield Unreadable(err)


def _input_of(path: str, row: dict[str, Any], column: str, modality: str, where: str) -> Any:
    from transformers_tart.inputs.examples import parse_text

    value, pair = row.get(column), row.get("text_pair")
    if value is None:
        raise ValueError(f"{where} has no {modality}.")
    if modality != TEXT:
        return _beside(path, value)
    given = value if pair is None else {"text": value, "text_pair": pair}
    parse_text(given, where)
    return given


def _beside(path: str, value: Any) -> Any:
    """Resolve a path relative to the folder of a table; addresses and other values stay."""
    if not isinstance(value, str) or "://" in value or value.startswith("data:"):
        return value
    return str(Path(path).parent / value)


__all__ = [
    "DTYPES",
    "add_model_options",
    "add_subparser",
    "check_columns",
    "check_options",
    "check_output_file",
    "join_processes",
    "load_config",
    "load_pipeline",
    "loading_options",
    "read_examples",
    "stream_inputs",
]
