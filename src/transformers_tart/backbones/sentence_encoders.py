"""Sentence encoders: repositories of sentence-transformers, a transformer and the modules that follow it.

`modules.json` lists the modules. Apart from safetensors only JSON files are read, and no code of a repository runs:
views and heads of this package stand in for the modules. A loaded `SentenceTransformer` has the same description.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import PreTrainedModel
from transformers.utils import cached_file, logging

from transformers_tart.backbones.sentence_head import STEPS, attach_head, build_head, share_modules
from transformers_tart.backbones.sentence_modules import Module, SentenceEncoder, as_object, describe
from transformers_tart.checks.bounds import check_inside, parse_json
from transformers_tart.errors import CorruptFileError


logger = logging.get_logger(__name__)

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
LIBRARY = "sentence_transformers."  # the beginning of the types of its own modules
FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def find_sentence_encoder(name: str, *, quiet: bool = False, **hub: Any) -> SentenceEncoder | None:
    """Return the settings of a sentence encoder, `None` for any other repository and for one that cannot be reached.

    Args:
        name (`str`):
            Hub id or folder.
        quiet (`bool`, *optional*, defaults to `False`):
            Whether to skip the warning about a Hub that cannot be reached.
        hub:
            As in `cached_file` of transformers.

    Raises:
        CorruptFileError: When a file is no JSON, or one that the modules need is missing.
        ValueError: When a module is outside the repository.
    """
    listed, modules = _read_modules(name, quiet, hub), []
    for number, row in enumerate(listed):
        kind, path, settings = _kind(row["type"]), row["path"], dict[str, Any]()
        if kind in (*STEPS, "Pooling") or kind.endswith("Transformer"):
            path = check_inside(f"{MODULES_FILE} of {name}", path)
        if number == 0 and kind == "Transformer":
            files = (_join(path, f"sentence_{family}_config.json") for family in FAMILIES)
            settings = next((found for file in files if (found := _read_object(name, file, hub))), {})
        elif kind in (*STEPS, "Pooling"):
            settings = _read_object(name, _join(path, "config.json"), hub, is_needed=kind != "Normalize")
        modules.append(Module(kind, path, settings))
    return describe(name, modules, _read_object(name, PROMPTS_FILE, hub)) if modules else None


def find_folder(name: str) -> str | None:
    """Return the folder of the transformer of a loaded SentenceTransformer inside its repository, if in a folder."""
    encoder = find_sentence_encoder(name, quiet=True) if name else None
    return None if encoder is None else encoder.path or None


def take_encoder(model: Any) -> tuple[Any, SentenceEncoder | None]:
    """Return the transformer of a loaded SentenceTransformer and its settings; another object as it is, and `None`.

    Raises:
        ValueError: When its first module is no transformer.
    """
    if not any(each.__name__ == "SentenceTransformer" and _is_own(each.__module__) for each in type(model).__mro__):
        return model, None
    modules = []
    for number, module in enumerate(model.children()):
        kind = _kind(f"{type(module).__module__}.{type(module).__name__}")
        modules.append(Module(kind, f"{number}_{kind}", getattr(module, "get_config_dict", dict)()))
    first = next(iter(model.children()), None)
    transformer = getattr(first, "auto_model", None)
    if not isinstance(transformer, PreTrainedModel):
        raise ValueError(
            f"The SentenceTransformer begins with {type(first).__name__}, not with a transformer, and cannot be a "
            "backbone; embed texts with it, and give a TartReasoner the embeddings."
        )
    length = {"max_seq_length": model.max_seq_length, "do_lower_case": getattr(first, "do_lower_case", False)}
    modules[0] = Module(modules[0].kind, "", {**modules[0].settings, **length})
    prompts = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    name = transformer.name_or_path or "The SentenceTransformer"
    encoder = replace(
        describe(name, [each for each in modules if each.kind != "Dropout"], prompts),
        truncate_dim=model.truncate_dim,
        tokenizer=model.tokenizer,
    )
    if encoder.head:
        head = build_head(encoder.head)
        for step, own in zip(encoder.head, head, strict=True):
            source = list(model.children())[int(step["path"].partition("_")[0])]
            own.load_state_dict(source.state_dict(), assign=True)
        transformer = attach_head(share_modules(transformer), encoder.head, head)
    return transformer, encoder


def _read_modules(name: str, quiet: bool, hub: dict[str, Any]) -> list[dict[str, str]]:
    """Return the modules that change an embedding; none where there is no list of modules."""
    try:
        path = cached_file(name, MODULES_FILE, **hub)
    except OSError as err:
        if isinstance(err.__cause__, LocalEntryNotFoundError) and not quiet:
            logger.warning_once(
                "Without a connection to the Hub it is unknown whether the backbone is a sentence encoder; it is read "
                "as any other backbone. Pass pooling=... to choose a pooling, or connect once."
            )
        return []
    listed = _read_json(name, MODULES_FILE, path)
    is_list = isinstance(listed, list) and all(
        isinstance(module, dict) and {str} == {type(module.get(key)) for key in ("type", "path")} for module in listed
    )
    if not is_list:
        raise CorruptFileError(
            f"{MODULES_FILE} of {name} is no list of modules, each with a type and a path; download the repository "
            "again (force_download=True)."
        )
    return [module for module in listed if _kind(module["type"]) != "Dropout"]


def _is_own(name: str) -> bool:
    """Return whether a dotted name is one of the library."""
    return f"{name}.".startswith(LIBRARY)


def _kind(name: str) -> str:
    """Return the class of a module of the library, and the whole name of a module that is code of others."""
    return name.rpartition(".")[2] if _is_own(name) else name


def _join(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _read_json(name: str, file: str, path: str | None) -> Any:
    try:
        return parse_json(Path(str(path)).read_text(encoding="utf-8"), file)
    except (OSError, ValueError) as err:
        raise CorruptFileError(
            f"{file} of {name}, a repository of sentence-transformers, cannot be read; download it again, or pass a "
            f"copy: {err}"
        ) from err


def _read_object(name: str, file: str, hub: dict[str, Any], is_needed: bool = False) -> dict[str, Any]:
    """Return the JSON object of a file; an empty one where an optional file is missing."""
    try:
        path = cached_file(name, file, **hub, _raise_exceptions_for_missing_entries=is_needed)
    except OSError as err:
        if not is_needed:
            raise
        raise CorruptFileError(
            f"{MODULES_FILE} of {name} announces {file}, which cannot be loaded; download the repository again: {err}"
        ) from err
    found = {} if path is None else _read_json(name, file, path)
    if is_needed and not isinstance(found, dict):
        raise CorruptFileError(f"{file} of {name} holds no settings; download the repository again.")
    return as_object(found)
