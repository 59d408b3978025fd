"""Requests for label hints: the arguments of a user, checked, and the texts that have to be embedded for them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.utils import logging

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.templates import check_hypothesis_template
from transformers_tart.hints.base import HINTS
from transformers_tart.hints.given import is_given, parse_given
from transformers_tart.hints.label_texts import check_descriptions, label_texts
from transformers_tart.inputs.containers import can_iterate
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.modality import Modality
from transformers_tart.inputs.texts import Text, parse_text


logger = logging.get_logger(__name__)

AUTO = "auto"
# Inputs without content, whose scores show how much a hint favors each class whatever the input is.
WITHOUT_CONTENT = ("N/A", "[MASK]", "")
MOST_UNLABELED = 256


@dataclass(frozen=True)
class HintRequest:
    """Label hints that a user asks for.

    Attributes:
        kinds: names of hints in the registry.
        is_auto: whether kinds that cannot be had are left out without an error.
        given: hints of the user by their names.
        template: template of the texts of labels.
        descriptions: descriptions of labels, by their names.
        unlabeled: inputs without labels.
    """

    kinds: tuple[str, ...] = ()
    is_auto: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
    template: str = "{}"
    descriptions: Mapping[str, str] = field(default_factory=dict)
    unlabeled: Sequence[Text] = ()

    @property
    def calibrating(self) -> list[Text]:
        """Inputs without content, and those without labels."""
        return [*WITHOUT_CONTENT, *self.unlabeled]


def parse_request(
    hints: Any,
    label_names: Sequence[str],
    template: str,
    descriptions: Any = None,
    unlabeled: Any = None,
    seed: int = 0,
) -> HintRequest:
    """Check the arguments of a user about hints.

    Args:
        hints (`str`, `Callable`, array, `dict` or `list`, *optional*):
            `"auto"`, `None`, names in the registry, hints of the user, a dict of these, or a list of any.
        label_names (`list[str]`):
            Names of the classes.
        template (`str`), descriptions (`dict`, *optional*):
            Template of the texts of labels, and descriptions by names.
        unlabeled (`list[str]`, *optional*), seed (`int`, *optional*, defaults to 0):
            Inputs without labels, of which at most 256 are drawn by the seed.

    Raises:
        TypeError, ValueError: On an argument of another kind, or a hint of no such name.
    """
    kinds: list[str] = []
    is_auto, given = False, dict[str, Any]()
    listed = list(hints) if isinstance(hints, (list, tuple)) else [] if hints is None else [hints]
    for each in listed:
        if isinstance(each, str) and each == AUTO:
            kinds, is_auto = [*kinds, *HINTS], True
        elif isinstance(each, str):
            kinds.append(each)
        elif isinstance(each, Mapping) or is_given(each):
            given |= parse_given(each)
        else:
            raise TypeError(
                f"hints has {shorten(each)} of type {type(each).__name__}; give {AUTO!r}, None, names of "
                f"{list(HINTS)}, a function of inputs and label names, an array of scores, or a dict or list of these."
            )
    if unknown := [name for name in kinds if name not in HINTS]:
        raise ValueError(f"hints names {shorten(unknown)}; give {AUTO!r}, None or names of {list(HINTS)}.")
    if taken := [name for name in given if name in HINTS]:
        raise ValueError(f"A hint of the user has the name {taken[0]!r} of one in the registry; give it another.")
    described = {} if descriptions is None else check_descriptions(descriptions, label_names)
    texts = () if unlabeled is None else _draw(unlabeled, seed)
    return HintRequest(
        tuple(dict.fromkeys(kinds)), is_auto, given, check_hypothesis_template(template), described, texts
    )


def _draw(unlabeled: Any, seed: int) -> tuple[Text, ...]:
    if isinstance(unlabeled, (str, bytes, Mapping)) or not can_iterate(unlabeled):
        raise TypeError(f"unlabeled is {type(unlabeled).__name__}; give a list of texts.")
    texts = [parse_text(item, f"Unlabeled input {i}") for i, item in enumerate(unlabeled)]
    return tuple(random.Random(seed).sample(texts, min(len(texts), MOST_UNLABELED)))


def choose_texts(
    request: HintRequest,
    label_names: Sequence[str],
    modality: Modality,
    options: EmbeddingOptions,
    reads_hints: bool,
    has_examples: bool = True,
) -> tuple[str | None, ...] | None:
    """Return the texts of the labels, `None` for labels without meaning; or `None` where no hint can go by them.

    Raises:
        ValueError: When hints are asked for by name and cannot be had, or there is neither a hint nor an example.
    """
    is_needed = not has_examples and not request.given
    if is_needed and not request.kinds:
        raise ValueError(
            "There are no examples, and hints=None leaves the names of the classes aside; give examples, or leave "
            "hints=None out."
        )
    if not request.kinds or (request.is_auto and not reads_hints and not is_needed):
        return None
    texts = label_texts(label_names, request.descriptions)
    count, problem = sum(text is not None for text in texts), None
    if not modality.is_tokenized:
        problem = f"are for texts, not for {modality}"
    elif options.has_prompt:
        problem = f'need the protocol "stream", and this is {options.protocol!r}'
    elif any("{text_pair}" in (view.template or "") for view in options.views):
        problem = "read single texts, and the template of a view asks for pairs"
    elif count < min(2, len(texts)):
        problem = (
            f"need two classes whose names have a meaning or that label_descriptions describes; there are {count}"
        )
    if problem is None:
        if count < len(texts):
            logger.info(f"{len(texts) - count} of {len(texts)} class names have no meaning and give no label hint.")
        return texts
    if is_needed:
        raise ValueError(
            f"There are no examples, and the label hints {list(request.kinds)} {problem}; give examples, or a hint of "
            "your own: hints=<function of inputs and label names>."
        )
    if not request.is_auto:
        raise ValueError(f"The label hints {list(request.kinds)} {problem}; leave them out (hints=None).")
    logger.info(f"There are no label hints, which {problem}.")
    return None


__all__ = ["HintRequest", "choose_texts", "parse_request"]
