"""Sentence encoders: repositories of sentence-transformers, a transformer and the modules that follow it.

`modules.json` lists the modules. Of all but the transformer, nothing is read but JSON, and no code of a repository is
run: what the modules ask for is done by the poolings of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError
from transformers.utils import cached_file, logging

from transformers_tart.checks.bounds import check_inside, parse_json
from transformers_tart.errors import CorruptFileError


logger = logging.get_logger(__name__)

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
LIBRARY = "sentence_transformers."  # how the types of its own modules begin
# What the library calls the poolings of this package, and how its older versions say them.
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
# Of a transformer's settings, those that may change what a text becomes, and are not applied.
FOREIGN_SETTINGS = ("tokenizer_args", "processor_kwargs", "config_args", "config_kwargs", "processing_kwargs")
HARMLESS = ("model_max_length", "trust_remote_code")


@dataclass(frozen=True)
class SentenceEncoder:
    r"""
    What a sentence encoder asks for.

    Args:
        path (`str`):
            Folder of its transformer inside the repository, `""` where it is the repository itself.
        pooling (`str`, *optional*):
            How its tokens become an embedding; `None` where this package cannot do that.
        normalize (`bool`):
            Whether the embedding is divided by its Euclidean norm.
        max_length (`int`, *optional*):
            Longest text in tokens.
        problem (`str`, *optional*):
            What is wrong where there is no pooling.
        notes (`tuple[str, ...]`):
            What the library does to texts and embeddings beyond that, and this package does not.
    """

    path: str
    pooling: str | None
    normalize: bool = False
    max_length: int | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()

    def fill(self, embedding: dict[str, Any]) -> dict[str, Any]:
        r"""
        Complete the fields of a [`TartConfig`] that say how texts become embeddings.

        Args:
            embedding (`dict[str, Any]`):
                What the caller gave, `pooling`, `normalize`, `layers` and `max_length` among it; it wins, and `None`
                stands for nothing.

        Raises:
            ValueError: When the caller gave no pooling, and that of the encoder cannot be had.
        """
        if embedding["pooling"] is None:
            if self.pooling is None:
                raise ValueError(self.problem)
            for note in self.notes:
                logger.warning(note)
        own = {"pooling": self.pooling, "normalize": self.normalize, "layers": -1, "max_length": self.max_length}
        return {**embedding, **{name: value for name, value in own.items() if embedding[name] is None}}


def find_sentence_encoder(name: str, *, quiet: bool = False, **hub: Any) -> SentenceEncoder | None:
    r"""
    Find out whether a backbone is a sentence encoder, and what it asks for.

    Args:
        name (`str`):
            Hub id or folder.
        quiet (`bool`, *optional*, defaults to `False`):
            Whether nothing is said where it cannot be found out.
        hub:
            As `cached_file` of transformers takes them: `revision`, `subfolder`, `token`, `cache_dir`,
            `local_files_only`, ...

    Returns:
        [`SentenceEncoder`], *optional*: `None` for any other repository, and for one that cannot be reached, of which
        those who load it tell.

    Raises:
        CorruptFileError: When a file is no JSON, or one that the modules need is missing.
        ValueError: When a module is outside the repository.
    """
    modules = _read_modules(name, quiet, hub)
    if not modules:
        return None
    kinds = [_kind(module["type"]) for module in modules]
    field = f"{MODULES_FILE} of {name}"
    path = check_inside(field, modules[0]["path"]) if kinds[0].endswith("Transformer") else ""
    if kinds[:2] != ["Transformer", "Pooling"]:
        return SentenceEncoder(path, None, problem=_explain(name, f"is made of {', '.join(kinds)}"))
    settings = _read_settings(name, path, hub)
    modes = _modes(_read_needed(name, _join(check_inside(field, modules[1]["path"]), "config.json"), hub))
    length = settings.get("max_seq_length") or _foreign(settings).get("model_max_length")
    max_length = length if type(length) is int and length > 0 else None
    problem = None
    if not _reads_last_layer(settings):
        problem = _explain(name, "reads texts by something else than the last layer of its transformer")
    elif len(modes) != 1 or modes[0] not in POOLINGS:
        problem = _explain(name, f"has the pooling {' + '.join(modes)}")
    if problem is not None:
        return SentenceEncoder(path, None, max_length=max_length, problem=problem)
    later = kinds[2:]
    normalize = later[:1] == ["Normalize"]
    notes = (*_note_modules(later[normalize:]), *_note_settings(settings), *_note_prompt(name, hub))
    return SentenceEncoder(path, POOLINGS[modes[0]], normalize, max_length, notes=notes)


def _explain(name: str, what: str) -> str:
    return (
        f"{name} is a sentence encoder that {what}, which this package does not do; it knows a Transformer and a "
        f"Pooling of one mode of {tuple(POOLINGS)}. Pass pooling=... to take its transformer alone, pooled that way."
    )


def _read_modules(name: str, quiet: bool, hub: dict[str, Any]) -> list[dict[str, str]]:
    """The modules that change an embedding; none where there is no list of modules."""
    try:
        path = cached_file(name, MODULES_FILE, **hub)
    except OSError as err:
        if isinstance(err.__cause__, LocalEntryNotFoundError) and not quiet:
            logger.warning_once(
                "Whether the backbone is a sentence encoder cannot be found out without a connection to the Hub; it "
                "is read as any other backbone. Pass pooling=... to say how, or connect once."
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


def _kind(module_type: str) -> str:
    """The class of a module of the library; modules of others, which are code, keep their whole type."""
    return module_type.rsplit(".", 1)[-1] if module_type.startswith(LIBRARY) else module_type


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


def _read_needed(name: str, file: str, hub: dict[str, Any]) -> dict[str, Any]:
    """An object of a file, which must be there."""
    try:
        path = cached_file(name, file, **hub)
    except OSError as err:
        raise CorruptFileError(
            f"{MODULES_FILE} of {name} announces {file}, which cannot be loaded; download the repository again: {err}"
        ) from err
    found = _read_json(name, file, path)
    if not isinstance(found, dict):
        raise CorruptFileError(f"{file} of {name} holds no settings; download the repository again.")
    return found


def _read_optional(name: str, file: str, hub: dict[str, Any]) -> dict[str, Any]:
    """An object of a file, empty where the repository has none."""
    path = cached_file(name, file, **hub, _raise_exceptions_for_missing_entries=False)
    return {} if path is None else _as_object(_read_json(name, file, path))


def _as_object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _read_settings(name: str, path: str, hub: dict[str, Any]) -> dict[str, Any]:
    """What the library adds to the config of a transformer; its older versions name the file by the family."""
    files = [f"sentence_{family}_config.json" for family in FAMILIES]
    found = (_read_optional(name, _join(path, file), hub) for file in files)
    return next((settings for settings in found if settings), {})


def _reads_last_layer(settings: dict[str, Any]) -> bool:
    """Whether texts become the last hidden states, as they do where nothing else is said."""
    by_modality = _as_object(settings.get("modality_config"))
    output = _as_object(by_modality.get("text"))
    is_said = output.get("method") == "forward" and output.get("method_output_name") in (LAST_LAYER, [LAST_LAYER])
    return is_said or not by_modality


def _modes(pooling: dict[str, Any]) -> tuple[str, ...]:
    """The modes of a pooling, in every form in which the library has written them; the mean where none is said."""
    mode = pooling.get("pooling_mode")
    if mode is None:
        return tuple(name for key, name in OLD_MODES.items() if pooling.get(key)) or ("mean",)
    return (mode,) if isinstance(mode, str) else tuple(str(one) for one in mode)


def _foreign(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in FOREIGN_SETTINGS for key, value in _as_object(settings.get(part)).items()}


def _note_modules(kinds: Sequence[str]) -> list[str]:
    if not kinds:
        return []
    return [
        f"The sentence encoder goes on with {', '.join(kinds)}, which is not applied: embeddings are taken before it."
    ]


def _note_settings(settings: dict[str, Any]) -> list[str]:
    notes = []
    if settings.get("do_lower_case"):
        notes.append(
            "The sentence encoder lowers the case of texts, which is left to the tokenizer here: where that keeps "
            "capitals, give texts without them."
        )
    others = sorted(_foreign(settings).keys() - set(HARMLESS))
    if others:
        notes.append(f"The sentence encoder sets {', '.join(others)}, which is not applied.")
    return notes


def _note_prompt(name: str, hub: dict[str, Any]) -> list[str]:
    settings = _read_optional(name, PROMPTS_FILE, hub)
    prompts, default = _as_object(settings.get("prompts")), settings.get("default_prompt_name")
    if not prompts.get(str(default)):
        return []
    return [f'The sentence encoder puts its prompt "{default}" before each text; here texts are read as they are.']


__all__ = ["SentenceEncoder", "find_sentence_encoder"]
