"""What several commands share: the options that load a model, and tables read through `datasets`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from transformers_tart.auto import load_auto
from transformers_tart.backbones import locate
from transformers_tart.configuration_tart import PROTOCOLS, TartConfig
from transformers_tart.examples import TEXT
from transformers_tart.modeling_auto import PipelineModel
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.tables import file_format, open_table


if TYPE_CHECKING:
    from datasets import IterableDataset

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_subparser(subparsers: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A parser whose help ends with an example."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Options that name a model and say how to load it."""
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


def load_config(args: argparse.Namespace) -> PreTrainedConfig:
    """The config of the model that the options name.

    Raises:
        OSError: When there is none; the message names the model.
    """
    try:
        source, revision = locate(args.model, args.revision)
        return load_auto(AutoConfig, source, revision=revision, token=args.token)
    except OSError as err:
        raise OSError(f'The model "{args.model}" cannot be loaded: {err}') from err


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """In which precision and on which devices the model options ask for a backbone, for `from_pretrained`."""
    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    return {"dtype": dtype} if args.device_map is None else {"dtype": dtype, "device_map": args.device_map}


def load_pipeline(
    args: argparse.Namespace,
    examples: Any = None,
    config: PreTrainedConfig | None = None,
    embedding_cache: str | None = None,
) -> TartClassificationPipeline:
    """The pipeline that the model options describe; `config` is what [`load_config`] gave, where it was called."""
    config = load_config(args) if config is None else config
    source, revision = locate(args.model, args.revision)
    hub = {"revision": revision, "token": args.token}
    chosen = {"protocol": args.protocol, "template": args.template}
    embedding = {name: value for name, value in chosen.items() if value is not None}
    model = PipelineModel.from_pretrained(source, config=config, **hub, **embedding, **loading_options(args))
    tokenizer = None  # the backbone's
    if isinstance(config, TartConfig) and config.modality == TEXT and has_tokenizer(source):
        tokenizer = load_auto(AutoTokenizer, source, **hub)
    return TartClassificationPipeline(
        model=model, tokenizer=tokenizer, examples=examples, device=args.device, embedding_cache=embedding_cache
    )


def has_tokenizer(folder: str) -> bool:
    """Whether a local folder holds a tokenizer; repositories on the Hub are taken to."""
    return not Path(folder).is_dir() or (Path(folder) / "tokenizer_config.json").exists()


def read_examples(path: str) -> "IterableDataset":
    """A file of labelled examples: columns `text` and perhaps `text_pair`, `image` or `audio`, and `label`."""
    table = _open(path)
    if Path(path).stat().st_size == 0:
        raise ValueError(f"{path} is empty; it must hold the columns text (or image, or audio) and label.")
    return table


def stream_inputs(path: str, key: str = "text", skip: int = 0) -> Iterator[Any]:
    """The texts or text pairs, images or audio of a file, read as they are needed, after the first `skip`.

    Raises:
        ValueError: When a row has none.
    """
    table = _open(path)
    if Path(path).stat().st_size == 0:
        return
    column = TEXT if file_format(path) == "text" else key  # the lines of a text file may be paths
    for number, row in enumerate(table.skip(skip), start=skip):
        if column not in row:
            raise ValueError(f"Row {number} of {path} has the columns {sorted(row)}; it needs a column {column}.")
        pair = row.get("text_pair")
        value = _beside(path, row[column]) if key != TEXT else row[column]
        yield value if pair is None else {"text": value, "text_pair": pair}


def _open(path: str) -> "IterableDataset":
    """A table, whose images and audio are files as they are, their paths counted from its folder."""
    from datasets import Audio, Image

    table = open_table(path)
    for kind, column in ((Image, "image"), (Audio, "audio")):
        feature = (table.features or {}).get(column)
        if isinstance(feature, kind):
            table = table.cast_column(column, kind(decode=False))
        elif column in (table.column_names or next(iter(table), {})):
            table = table.map(lambda row, name=column: {name: _beside(path, row[name])})
    return table


def _beside(path: str, value: Any) -> Any:
    """A path that stands in a table; what is none, or an address, stays."""
    if not isinstance(value, str) or "://" in value or value.startswith("data:"):
        return value
    return str(Path(path).parent / value)


__all__ = [
    "add_model_options",
    "add_subparser",
    "load_config",
    "load_pipeline",
    "loading_options",
    "read_examples",
    "stream_inputs",
]
