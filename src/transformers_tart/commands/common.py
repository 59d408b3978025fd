"""Code of several commands: shared options, loading, tables, and checks before anything is loaded.

Commands import heavy packages when they run, so that `--help` is fast.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.checks.arguments import as_source, check_device
from transformers_tart.checks.templates import parse_template
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.views import choose_views
from transformers_tart.inputs.modality import Modality
from transformers_tart.inputs.views import IN_CONTEXT_PROTOCOLS, PROTOCOLS, View
from transformers_tart.loading.auto import find_model
from transformers_tart.modeling_tart import PipelineModel, backbone_modality
from transformers_tart.pipeline_tart import TartClassificationPipeline


if TYPE_CHECKING:
    from accelerate import PartialState

DTYPES = ("auto", "float32", "bfloat16", "float16")
COUNTS = ("batch_size", "max_length", "max_prompt", "max_steps", "max_test", "queries", "repeats", "seeds", "tasks")


def _unescape(template: str) -> str:
    """Replace the escapes of line breaks and tabs, which a shell leaves, in a template without line breaks."""
    return template if "\n" in template else template.replace(r"\n", "\n").replace(r"\t", "\t")


def _read_views(given: str) -> str | list[str]:
    """Read the name of a preset, or names of the registry between commas, and check them."""
    names = [name.strip() for name in given.split(",")]
    asked = names if len(names) > 1 else names[0]
    try:
        choose_views(asked, "causal")
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return asked


LOADING = (
    *("--model", "--revision", "--token", "--dtype", "--device", "--device-map"),
    *("--views", "--protocol", "--template", "--prompt"),
)
EVALUATION = (
    *("--model", "--revision", "--reasoner", "--views", "--prompt"),
    *("--max-length", "--batch-size", "--dtype", "--device"),
)
SHARED_OPTIONS: dict[str, dict[str, Any]] = {
    "--model": {"required": True, "help": "Hub id or folder of a TART repository or of any backbone, or mini"},
    "--revision": {"help": "branch, tag or commit of the model"},
    "--reasoner": {"help": "kernel, or the folder or Hub id of a reasoner, for a backbone (default: kernel)"},
    "--token": {"help": "access token for the Hub (default: the stored one)"},
    "--dtype": {
        "choices": DTYPES,
        "default": "auto",
        "help": "precision of the backbone; auto is that of the stored support "
        "set, else bfloat16 for models with attention where the device computes in it, else float32 on CPUs "
        "(default: auto)",
    },
    "--device": {"help": "device, for example cpu or cuda:1 (default: the first accelerator)"},
    "--device-map": {"help": '"auto" spreads the backbone over all devices'},
    "--views": {
        "type": _read_views,
        "help": "ways of turning an input into an embedding, read side by side: default, plain (a pass without a "
        "template), best (whatever it costs), or names between commas, such as one_word,echo; an unknown one lists "
        "them (default: the model's, or default)",
    },
    "--protocol": {
        "choices": PROTOCOLS,
        "help": "stream embeds each text alone; vanilla and loo embed it after a prompt of the examples (default: the "
        "model's, or stream)",
    },
    "--template": {
        "type": _unescape,
        "help": "template of an example in a prompt, or without {label} of the only view, in place of --views; "
        r'\n is a line break and \t a tab (default of a prompt: "Sentence: {text}\nLabel: {label}\n")',
    },
    "--prompt": {"help": 'text before each text, such as "query: " for e5 (default: that of the model, if any)'},
    "--max-length": {"type": int, "help": "longest text in tokens (default: the model's limit)"},
    "--batch-size": {"type": int, "help": "largest number of inputs in a batch (default: a token budget)"},
    "--json": {"metavar": "FILE", "help": "JSON file for all numbers"},
}


def one_of(module: str, registry: str) -> Callable[[str], str]:
    """Return the type of an option that takes a name of a registry, which is imported when a name is given.

    `choices` would import it for the help, and in Python 3.11 refuse an empty list of names.
    """

    def check(name: str) -> str:
        names = getattr(import_module(f"transformers_tart.{module}"), registry)
        if name not in names:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; choose from {', '.join(names)}")
        return name

    return check


def add_shared(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Add options that several commands have."""
    for name in names:
        parser.add_argument(name, **SHARED_OPTIONS[name] | changes)


def evaluation_options(args: argparse.Namespace, default_device: torch.device) -> dict[str, Any]:
    """Return the options `EVALUATION` as arguments of `evaluation.methods.Models`."""
    device = default_device if args.device is None else torch.device(args.device)
    names = ("revision", "reasoner", "views", "prompt", "dtype", "batch_size", "max_length")
    return {"name": args.model, "device": device, **{name: vars(args)[name] for name in names}}


def hub_options(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the repository or folder of the model, and where in the Hub to find it."""
    reference = BackboneReference.of(args.model, args.revision)
    return reference.path, {**reference.place, "token": args.token}


def load_config(args: argparse.Namespace) -> PreTrainedConfig:
    """Load the config of the model."""
    try:
        name, hub = hub_options(args)
        return find_model(name, **hub).config
    except OSError as err:
        reason = str(err).removeprefix(f"{args.model} cannot be loaded: ")
        raise OSError(f'The model "{args.model}" cannot be loaded: {reason}') from err


def modality_of(config: PreTrainedConfig) -> Modality:
    """Return the modality of a task or backbone."""
    return config.modality if isinstance(config, TartBaseConfig) else backbone_modality(config)


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the precision and device map as arguments of `from_pretrained`."""
    dtype = args.dtype if args.dtype == "auto" else getattr(torch, args.dtype)
    return {"dtype": dtype} if args.device_map is None else {"dtype": dtype, "device_map": args.device_map}


def embedding_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the views, the protocol, the template and the prompt, as far as they are given."""
    names = ("views", "protocol", "template", "prompt")
    given = {name: getattr(args, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def check_template(args: argparse.Namespace) -> None:
    """Check the template before a model is loaded."""
    if args.template is None:
        return
    if args.views is not None:
        raise ValueError(
            "--template is for a prompt or the only view, and --views is given too; leave one of them out."
        )
    parse_template(args.template) if args.protocol in IN_CONTEXT_PROTOCOLS else View(template=args.template)


def load_pipeline(
    args: argparse.Namespace,
    config: PreTrainedConfig,
    examples: Any = None,
    embedding_cache: str | None = None,
    **classes: Any,
) -> TartClassificationPipeline:
    """Load the pipeline of the model; `config` is the result of [`load_config`]."""
    check_template(args)
    name, hub = hub_options(args)
    options = {**hub, **embedding_options(args), **loading_options(args), "device": args.device}
    model = PipelineModel.from_pretrained(name, config=config, **options)
    classify = TartClassificationPipeline(model=model, device=args.device, embedding_cache=embedding_cache)
    if examples is not None or "candidate_labels" in classes:
        classify.set_examples(examples, progress_bar=logging.is_progress_bar_enabled(), **classes)
    return classify


def join_processes(device: str | None) -> "PartialState":
    """Join the processes of `accelerate launch`, which do not find each other without an accelerator otherwise."""
    from accelerate import PartialState

    cpu = device == "cpu" or not torch.accelerator.is_available()
    return PartialState(cpu=cpu, timeout=timedelta(days=30))  # the first that are done wait for the others


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
