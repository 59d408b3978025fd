"""Sentence encoders: repositories of sentence-transformers, a transformer and the modules that follow it.

`modules.json` lists the modules. Apart from the transformer only JSON files are read, and no code of a repository
runs: the poolings of this package stand in for the modules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError
from transformers.utils import cached_file, logging

from transformers_tart.checks.bounds import check_inside, parse_json
from transformers_tart.errors import CorruptFileError
from transformers_tart.inputs.views import View


logger = logging.get_logger(__name__)

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
LIBRARY = "sentence_transformers."  # the beginning of the types of its own modules
# Poolings of the library, and of this package; and the fields of its older versions for them.
POOLINGS = {"cls": "first", "max": "max", "mean": "mean", "lasttoken": "last"}
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
FAMILIES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
LAST_LAYER = "last_hidden_state"
# Settings of a transformer that may change its embeddings, and are not applied.
FOREIGN_SETTINGS = ("tokenizer_args", "processor_kwargs", "config_args", "config_kwargs", "processing_kwargs")
HARMLESS = ("model_max_length", "trust_remote_code")


@dataclass(frozen=True)
class SentenceEncoder:
    r"""
    Settings of a sentence encoder.

    Args:
        path (`str`):
            Folder of its transformer inside the repository, `""` where it is the repository itself.
        pooling (`str`, *optional*):
            Pooling of its tokens; `None` where this package does not have it.
        normalize (`bool`, *optional*, defaults to `False`):
            Whether the embedding is divided by its Euclidean norm.
        max_length (`int`, *optional*):
            Longest text in tokens.
        problem (`str`, *optional*):
            Reason why there is no pooling.
        notes (`tuple[str, ...]`, *optional*):
            Steps of the library on texts and embeddings that this package does not take.
    """

    path: str
    pooling: str | None = None
    normalize: bool = False
    max_length: int | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()

    def view(self, arguments: Mapping[str, Any]) -> View:
        """Return the view that the encoder describes, as far as arguments of a caller are `None`.

        Raises:
            ValueError: When the caller gave no pooling, and this package does not have that of the encoder.
        """
        if arguments.get("pooling") is None:
            if self.pooling is None:
                raise ValueError(self.problem)
            for note in self.notes:
                logger.warning(note)
        own = {"pooling": self.pooling, "normalize": self.normalize, "layers": -1}
        given = {name: arguments[name] for name in own if arguments.get(name) is not None}
        return View("sentence", **{**own, **given})


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
    modules = _read_modules(name, quiet, hub)
    if not modules:
        return None
    kinds = [_kind(module) for module in modules]
    field = f"{MODULES_FILE} of {name}"
    path = check_inside(field, modules[0]["path"]) if kinds[0].endswith("Transformer") else ""
    if kinds[:2] != ["Transformer", "Pooling"]:
        return SentenceEncoder(path, problem=_explain(name, f"is made of {', '.join(kinds)}"))
    files = (_join(path, f"sentence_{family}_config.json") for family in FAMILIES)
    settings = next((found for file in files if (found := _read_object(name, file, hub))), {})
    pooling = _join(check_inside(field, modules[1]["path"]), "config.json")
    modes = _modes(_read_object(name, pooling, hub, is_needed=True))
    foreign = {key: value for part in FOREIGN_SETTINGS for key, value in _as_object(settings.get(part)).items()}
    length = settings.get("max_seq_length") or foreign.get("model_max_length")
    max_length = length if type(length) is int and length > 0 else None
    problem = None
    if not _reads_last_layer(settings):
        problem = _explain(name, "reads texts by something else than the last layer of its transformer")
    elif len(modes) != 1 or modes[0] not in POOLINGS:
        problem = _explain(name, f"has the pooling {' + '.join(modes)}")
    if problem is not None:
        return SentenceEncoder(path, max_length=max_length, problem=problem)
    normalize = kinds[2:3] == ["Normalize"]
    prompts = _read_object(name, PROMPTS_FILE, hub)
    notes = _notes(kinds[2 + normalize :], settings, sorted(foreign.keys() - set(HARMLESS)), prompts)
    return SentenceEncoder(path, POOLINGS[modes[0]], normalize, max_length, notes=tuple(notes))


def _explain(name: str, reason: str) -> str:
    return (
        f"{name} is a sentence encoder that {reason}, which this package does not do; it takes a Transformer and a "
        f"Pooling of one mode of {tuple(POOLINGS)}. Pass pooling=... to take its transformer alone, pooled that way."
    )


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
    return [module for module in listed if _kind(module) != "Dropout"]


def _kind(module: dict[str, str]) -> str:
    """Return the class of a module of the library, and the whole type of a module that is code of others."""
    return module["type"].rsplit(".", 1)[-1] if module["type"].startswith(LIBRARY) else module["type"]


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
    return _as_object(found)


def _as_object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _reads_last_layer(settings: dict[str, Any]) -> bool:
    """Return whether embeddings are made of the last hidden states, the default."""
    by_modality = _as_object(settings.get("modality_config"))
    output = _as_object(by_modality.get("text"))
    is_stated = output.get("method") == "forward" and output.get("method_output_name") in (LAST_LAYER, [LAST_LAYER])
    return is_stated or not by_modality


def _modes(pooling: dict[str, Any]) -> tuple[str, ...]:
    """Return the modes of a pooling, in every form in which the library has written them; the mean by default."""
    mode = pooling.get("pooling_mode")
    if mode is None:
        return tuple(name for key, name in OLD_MODES.items() if pooling.get(key)) or ("mean",)
    return (mode,) if isinstance(mode, str) else tuple(str(each) for each in mode)


def _notes(
    modules: Sequence[str], settings: dict[str, Any], foreign: Sequence[str], prompts: dict[str, Any]
) -> list[str]:
    """Describe the steps that are not taken."""
    notes = []
    if modules:
        notes.append(
            f"The sentence encoder goes on with {', '.join(modules)}, which is not applied: embeddings are taken "
            "before it."
        )
    if settings.get("do_lower_case"):
        notes.append(
            "The sentence encoder lowers the case of texts, which is left to the tokenizer here: where that keeps "
            "capitals, give texts without them."
        )
    if foreign:
        notes.append(f"The sentence encoder sets {', '.join(foreign)}, which is not applied.")
    default = prompts.get("default_prompt_name")
    if _as_object(prompts.get("prompts")).get(str(default)):
        notes.append(f'The sentence encoder puts its prompt "{default}" before each text; here texts are read alone.')
    return notes
