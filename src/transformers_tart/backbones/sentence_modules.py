"""Descriptions of sentence encoders by the settings of their modules, as sentence-transformers writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from transformers.utils import logging

from transformers_tart.backbones.forward import NO_LIMIT
from transformers_tart.backbones.sentence_head import STEPS, read_step
from transformers_tart.checks.arguments import shorten
from transformers_tart.inputs.views import View


logger = logging.get_logger(__name__)

# Poolings of the library, in its order, and of this package; and the fields of its older versions for them.
POOLINGS = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
LAST_LAYER = "last_hidden_state"
# Settings of a transformer that may change its embeddings, and are not applied.
FOREIGN_SETTINGS = ("tokenizer_args", "processor_kwargs", "config_args", "config_kwargs", "processing_kwargs")
HARMLESS = ("model_max_length", "trust_remote_code")


class Module(NamedTuple):
    """A module of the library: its class, its folder, and its settings."""

    kind: str
    path: str
    settings: dict[str, Any]


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
        max_length (`int`, *optional*), lower_case (`bool`, *optional*), truncate_dim (`int`, *optional*):
            Longest text in tokens, whether it is put in lower case, and the components to keep.
        head (`tuple[dict, ...]`, *optional*):
            Steps between the pooling and the normalization, as in [`read_step`].
        prompts (`dict[str, str]`), default_prompt (`str`), *optional*:
            Texts that are put before each text, and the name of the one to take by default.
        pools_prompt (`bool`, *optional*, defaults to `True`):
            Whether the tokens of the prompt are pooled too.
        problem (`str`, *optional*):
            Reason why there is no pooling.
        note (`str`, *optional*):
            Settings of the library that this package does not apply.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Tokenizer of a loaded model.
    """

    path: str
    pooling: str | None = None
    normalize: bool = False
    max_length: int | None = None
    lower_case: bool = False
    truncate_dim: int | None = None
    head: tuple[dict[str, Any], ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    pools_prompt: bool = True
    problem: str | None = None
    note: str | None = None
    tokenizer: Any = None

    def view(self, arguments: Mapping[str, Any]) -> View:
        """Return the view that the encoder describes, as far as arguments of a caller are `None`.

        Of an encoder with another pooling or other layers than its own, only the transformer is taken.

        Raises:
            ValueError: When the caller gave no pooling, and this package does not have that of the encoder.
        """
        if arguments.get("pooling") is None:
            if self.pooling is None:
                raise ValueError(self.problem)
            if self.note is not None:
                logger.warning(self.note)
        own: dict[str, Any] = {"pooling": self.pooling, "normalize": self.normalize, "layers": -1}
        given = {name: arguments[name] for name in own if arguments.get(name) is not None}
        if "pooling" not in given and "layers" not in given:
            own |= {"head": bool(self.head), "truncate_dim": self.truncate_dim}
        return View("sentence", **{**own, **given})

    def prompt(self, name: str | None = None) -> str | None:
        """Return the prompt of a name, by default the one that the encoder takes by default, if any.

        Raises:
            ValueError: When there is none of that name.
        """
        name = self.default_prompt if name is None else name
        if name is None:
            return None
        if name not in self.prompts:
            raise ValueError(
                f"prompt_name is {shorten(name)}, and the sentence encoder has the prompts {sorted(self.prompts)}; "
                "give one of them, or the text itself: prompt=..."
            )
        return self.prompts[name]


def describe(name: str, modules: Sequence[Module], prompts: Mapping[str, Any]) -> SentenceEncoder:
    """Return the settings that modules describe, with the problem that there may be."""
    kinds = [module.kind for module in modules]
    path, settings = modules[0].path if kinds[0].endswith("Transformer") else "", modules[0].settings
    if kinds[:2] != ["Transformer", "Pooling"]:
        return SentenceEncoder(path, problem=_explain(name, f"is made of {', '.join(kinds)}"))
    foreign = {key: value for part in FOREIGN_SETTINGS for key, value in as_object(settings.get(part)).items()}
    unread = sorted(foreign.keys() - set(HARMLESS))
    length = settings.get("max_seq_length") or foreign.get("model_max_length")
    texts = {str(key): text for key, text in as_object(prompts.get("prompts")).items() if isinstance(text, str)}
    default, modes = prompts.get("default_prompt_name"), _modes(modules[1].settings)
    encoder = SentenceEncoder(
        path,
        max_length=length if type(length) is int and 0 < length < NO_LIMIT else None,
        lower_case=settings.get("do_lower_case") is True,
        prompts=texts,
        default_prompt=default if isinstance(default, str) else None,
        pools_prompt=modules[1].settings.get("include_prompt") is not False,
        note=f"The sentence encoder sets {', '.join(unread)}, which is not applied." if unread else None,
    )
    later, problem = modules[2:], None
    is_normal = bool(later) and later[-1].kind == "Normalize"
    try:
        steps = [read_step(*module) for module in later]
    except ValueError as err:
        problem = str(err)
    if not _reads_last_layer(settings):
        problem = "reads texts by something else than the last layer of its transformer"
    elif not set(modes) <= POOLINGS.keys():
        problem = f"has the pooling {' + '.join(modes)}"
    if problem is not None:
        return replace(encoder, normalize=is_normal, problem=_explain(name, problem))
    pooling = "+".join(POOLINGS[mode] for mode in modes)
    return replace(encoder, pooling=pooling, normalize=is_normal, head=tuple(steps[: len(steps) - is_normal]))


def _explain(name: str, reason: str) -> str:
    return (
        f"{name} is a sentence encoder that {reason}, which this package does not do; it takes a Transformer, a "
        f"Pooling of the modes {tuple(POOLINGS)}, and {tuple(STEPS)}. Pass pooling=... to take its transformer alone, "
        "pooled that way."
    )


def as_object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _reads_last_layer(settings: dict[str, Any]) -> bool:
    """Return whether embeddings are made of the last hidden states, the default."""
    by_modality = as_object(settings.get("modality_config"))
    output = as_object(by_modality.get("text"))
    is_stated = output.get("method") == "forward" and output.get("method_output_name") in (LAST_LAYER, [LAST_LAYER])
    return (is_stated and "message" not in by_modality) or not by_modality


def _modes(pooling: dict[str, Any]) -> tuple[str, ...]:
    """Return the modes of a pooling, in every form in which the library has written them; the mean by default."""
    mode = pooling.get("pooling_mode")
    if mode is None:
        return tuple(name for key, name in OLD_MODES.items() if pooling.get(key)) or ("mean",)
    return (mode,) if isinstance(mode, str) else tuple(str(each) for each in mode)
