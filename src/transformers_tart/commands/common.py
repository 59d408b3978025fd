"""What several commands share: options that load a model, tables, and checks made before anything is loaded.

Commands import what is heavy when they run, so that `--help` need not wait for it.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.checks.arguments import as_source, check_device
from transformers_tart.inputs.tables import file_format, open_table, read_columns, read_rows


if TYPE_CHECKING:
    from datasets import IterableDataset
    from transformers import PreTrainedConfig

    from transformers_tart.pipeline_tart import TartClassificationPipeline

DTYPES = ("auto", "float32", "bfloat16", "float16")
TEXT = "text"
COUNTS = ("batch_size", "max_length", "max_steps", "max_test", "queries", "repeats", "seeds", "tasks")


def add_subparser(subparsers: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the options that name a model and say how to load it."""
    from transformers_tart.configuration_tart import PROTOCOLS

    parser.add_argument(
        "--model", required=required, help="Hub id or folder of a TART repository or of any backbone, or mini"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the model")
    parser.add_argument("--token", help="access token for the Hub; the stored one when not given")
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="precision of the backbone (default: auto)")
    parser.add_argument("--device", help="where to run, for example cpu or cuda:1 (default: the first accelerator)")
    parser.add_argument("--device-map", help='"auto" spreads the backbone over all devices')
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="stream: each text alone; vanilla, loo: after a prompt of the examples (default: the model's, or stream)",
    )
    parser.add_argument(
        "--template", help='of an example in a prompt (default: "Sentence: {text}\\nLabel: {label}\\n")'
    )


def _unescape(text: str) -> str:
    """Line ends and tabs as one writes them in a shell."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def load_config(args: argparse.Namespace) -> "PreTrainedConfig":
    """Load the config of the model that the options name.

    Raises:
        OSError: When there is none; the message names the model.
    """
    from transformers_tart.backbones.reference import BackboneReference
    from transformers_tart.loading.auto import find_model

    try:
        reference = BackboneReference.of(args.model, args.revision)
        return find_model(reference.path, **reference.place, token=args.token).config
    except OSError as err:
        reason = str(err).removeprefix(f"{args.model} cannot be loaded: ")
        raise OSError(f'The model "{args.model}" cannot be loaded: {reason}') from err


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the precision and device map that the options ask for, as `from_pretrained` takes them."""
    import torch

    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    return {"dtype": dtype} if args.device_map is None else {"dtype": dtype, "device_map": args.device_map}


def load_pipeline(
    args: argparse.Namespace,
    examples: Any = None,
    config: "PreTrainedConfig | None" = None,
    embedding_cache: str | None = None,
) -> "TartClassificationPipeline":
    """Load the pipeline that the options describe; `config` is what [`load_config`] returned, if it was called."""
    from transformers_tart.backbones.reference import BackboneReference
    from transformers_tart.modeling_tart import PipelineModel
    from transformers_tart.pipeline_tart import TartClassificationPipeline

    config = load_config(args) if config is None else config
    reference = BackboneReference.of(args.model, args.revision)
    hub = {**reference.place, "token": args.token}
    chosen = {"protocol": args.protocol, "template": args.template}
    embedding = {name: value for name, value in chosen.items() if value is not None}
    model = PipelineModel.from_pretrained(reference.path, config=config, **hub, **embedding, **loading_options(args))
    return TartClassificationPipeline(
        model=model, examples=examples, device=args.device, embedding_cache=embedding_cache
    )


def modality_of(config: "PreTrainedConfig") -> str:
    """Return what the model of a config classifies: `"text"`, `"image"` or `"audio"`."""
    from transformers_tart.configuration_tart import TartBaseConfig
    from transformers_tart.modeling_tart import backbone_modality

    return config.modality if isinstance(config, TartBaseConfig) else backbone_modality(config)


def check_options(args: argparse.Namespace) -> None:
    """Check the options that mean the same in every command: devices, numbers, and files of JSON.

    Raises:
        ValueError: When one of them is wrong.
    """
    options = vars(args)
    if options.get("model") is not None:
        as_source(options["model"], "--model")
    check_device(options.get("device"))
    for name in COUNTS:
        check_at_least("--" + name.replace("_", "-"), options.get(name), 1)
    if options.get("json") is not None:
        check_output_file(Path(options["json"]))


def check_at_least(option: str, value: float | None, least: float) -> None:
    """Check that a number is not too small.

    Raises:
        ValueError: When it is.
    """
    if value is not None and not value >= least:
        raise ValueError(f"{option} is {value}; it must be at least {least}.")


def check_columns(path: str, columns: Sequence[str], any_of_them: bool = False) -> None:
    """Check that a table can be read and has some columns; a file without rows and header has all.

    Raises:
        ValueError: When it has not.
    """
    found = read_columns(path)
    if found is None or (file_format(path) == "text" and "label" not in columns):  # lines may be texts or paths
        return
    missing = [name for name in columns if name not in found]
    if missing and not (any_of_them and len(missing) < len(columns)):
        needed = " or ".join(missing) if any_of_them else " and ".join(missing)
        raise ValueError(f"{path} has the columns {sorted(found)}; it needs a column {needed}.")


def check_output_file(output: Path, apart_from: Sequence[str] = ()) -> None:
    """Check that a file can be written, and is none of the files that are read.

    Raises:
        ValueError: When it cannot, or is.
    """
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give a file.")
    if not output.parent.is_dir():
        raise ValueError(f"There is no folder {output.parent} for {output.name}; make it, or give another.")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise ValueError(f"{output} cannot be written; change its permissions, or give another file.")
    if any(output.exists() and output.samefile(path) for path in apart_from):
        raise ValueError(f"{output} is read and cannot be written at the same time; give another file.")


def read_examples(path: str) -> "IterableDataset":
    """Open a file of labeled examples: columns `text` and perhaps `text_pair`, `image` or `audio`, and `label`.

    Raises:
        ValueError: When it is empty or damaged.
    """
    from datasets import Audio, Image

    columns = read_columns(path)
    if columns is None:
        raise ValueError(f"{path} is empty; it must hold the columns text (or image, or audio) and label.")
    for _ in read_rows(path):  # damage is found before a model is loaded
        pass
    table = open_table(path)
    for kind, column in ((Image, "image"), (Audio, "audio")):
        feature = (table.features or {}).get(column)
        if isinstance(feature, kind):
            table = table.cast_column(column, kind(decode=False))
        elif column in columns:
            table = table.map(lambda row, name=column: {name: _beside(path, row[name])})
    return table


def stream_inputs(path: str, key: str = TEXT, skip: int = 0) -> Iterator[Any]:
    """Yield the texts or text pairs, images or audio of a file as they are needed, after the first `skip`.

    A row without any, or with a text that is none, yields `Unreadable` with the error, which gives the number of the
    row in the file, from 0.

    Raises:
        ValueError: When the file is damaged; after the rows before.
    """
    from transformers_tart.pipeline_inputs import Unreadable

    column = TEXT if file_format(path) == "text" else key  # the lines of a text file may be paths
    for number, row in enumerate(read_rows(path)):
        if number < skip:
            continue
        try:
            value = _input_of(row, column, key, f"Row {number}")
        except (ValueError, TypeError) as err:
            value = Unreadable(err)
        yield value if key == TEXT or isinstance(value, Unreadable) else _beside(path, value)


def _input_of(row: dict[str, Any], column: str, key: str, where: str) -> Any:
    from transformers_tart.inputs.examples import parse_text

    value, pair = row.get(column), row.get("text_pair")
    if value is None:
        raise ValueError(f"{where} has no {key}.")
    if key != TEXT:
        return value
    given = value if pair is None else {"text": value, "text_pair": pair}
    parse_text(given, where)
    return given


def _beside(path: str, value: Any) -> Any:
    """Return a path as it is meant in a table; what is none, or an address, stays."""
    if not isinstance(value, str) or "://" in value or value.startswith("data:"):
        return value
    return str(Path(path).parent / value)


__all__ = [
    "DTYPES",
    "add_model_options",
    "add_subparser",
    "check_at_least",
    "check_columns",
    "check_options",
    "check_output_file",
    "load_config",
    "load_pipeline",
    "loading_options",
    "modality_of",
    "read_examples",
    "stream_inputs",
]
