"""Arguments of a call that `pipeline("text-classification")` passes on to its tokenizer: ignored, used or refused."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.inputs.modality import Modality


# Chosen on train rows of real sets (hub_cards/tart-reasoner-kernel/hints.md).
DEFAULT_HYPOTHESIS = "This text expresses {}."
FLAG = (True, False, None)
# Allowed values that change no prediction: texts of a batch do not depend on each other or on their padding.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "padding": (*FLAG, "longest", "max_length", "do_not_pad"),
    "padding_side": ("left", "right", None),
    **dict.fromkeys(("return_attention_mask", "return_length", "return_offsets_mapping"), FLAG),
    "return_special_tokens_mask": FLAG,
    "verbose": (True, False),
}
IGNORED = ("pad_to_multiple_of", "return_tensors")  # whatever their values
# Other values would embed queries differently from the examples.
FIXED: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "is_split_into_words": (False, None),
    "return_overflowing_tokens": (False, None),
    "split_special_tokens": (False, None),
    "stride": (0, None),
}
TRUNCATIONS = (*FLAG, "longest_first", "only_first", "do_not_truncate")
FUNCTIONS = ("default", "softmax", "sigmoid", "none")
NAMES = ("max_length", "truncation", "return_token_type_ids", *NEUTRAL, *IGNORED, *FIXED)


@dataclass(frozen=True)
class TextOptions:
    """Options for reading texts."""

    max_length: int | None = None
    truncates: bool = True  # rather than refuses longer texts
    single: str | None = None  # the argument that rules out pairs of texts


def refuse_arguments(unknown: Collection[str]) -> None:
    """Raise a TypeError that names arguments which a call does not have, if there are any."""
    if unknown:
        hint = "; for the scores of all classes pass top_k=None" if "return_all_scores" in unknown else ""
        raise TypeError(f"The pipeline got the unexpected keyword arguments {list(unknown)}{hint}.")


def text_options(arguments: dict[str, Any], modality: Modality) -> dict[str, Any]:
    """Return the fields of [`TextOptions`] that arguments of a call set; refuse unknown arguments and values."""
    refuse_arguments([name for name in arguments if name not in NAMES])
    if arguments and not modality.is_tokenized:
        given = ", ".join(f"{name} is {shorten(value)}" for name, value in arguments.items())
        raise TypeError(f"{given}, which is for texts; cut {modality} inputs before.")
    for name, allowed in {**NEUTRAL, **FIXED}.items():
        if name in arguments:
            _check_value(name, arguments[name], allowed)
    options: dict[str, Any] = {}
    if arguments.get("max_length") is not None:
        options["max_length"] = as_count(arguments["max_length"], "max_length", ", or None")
    if "truncation" in arguments:
        truncation = _check_value("truncation", arguments["truncation"], TRUNCATIONS)
        options["truncates"] = truncation not in (False, "do_not_truncate")
        if truncation == "only_first":  # which is the same for a single text
            options["single"] = 'truncation="only_first"'
    if _check_value("return_token_type_ids", arguments.get("return_token_type_ids"), FLAG) is False:
        options["single"] = "return_token_type_ids=False"
    return options


def answer_options(top_k: Any, function_to_apply: Any) -> dict[str, Any]:
    """Return the arguments of a call for its results that are given; raise an error on invalid ones."""
    options: dict[str, Any] = {}
    if not (isinstance(top_k, str) and top_k == ""):  # which stands for no `top_k`
        options["top_k"] = None if top_k is None else as_count(top_k, "top_k", ", or None for all classes")
    if function_to_apply is not None:
        name = getattr(function_to_apply, "value", function_to_apply)  # of transformers' enum
        if not isinstance(name, str) or name.lower() not in FUNCTIONS:
            raise ValueError(
                f'function_to_apply is {shorten(name)}; it must be "default", "softmax", "sigmoid" or "none".'
            )
        options["function_to_apply"] = name.lower()
    return options


def _check_value(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    value = getattr(value, "value", value)  # members of transformers' enums
    if not any(type(value) is type(other) and value == other for other in allowed):
        reason = "others would embed queries differently from the examples" if name in FIXED else "or be left out"
        raise ValueError(f"{name} is {shorten(value)}; it must be one of {allowed}, {reason}.")
    return value
