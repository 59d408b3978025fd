"""Templates of labeled examples in prompts."""

from string import Formatter
from typing import NamedTuple

from transformers_tart.checks.arguments import shorten


TEMPLATE = "Sentence: {text}\nLabel: {label}\n"  # of the TART paper
PAIR_TEMPLATE = "Sentence: {text}\nSentence: {text_pair}\nLabel: {label}\n"
FIELDS = (["text", "label"], ["text", "text_pair", "label"])
RULES = (
    "a template holds {text}, for pairs then {text_pair}, and then {label}, each once and with nothing else in braces"
)


class Template(NamedTuple):
    """The literals of a template: before each text, from the last text to the label, before and after the label."""

    before: tuple[str, ...]
    question: str
    opening: str
    closing: str


def parse_template(template: str) -> Template:
    """Split a template into its literals.

    Raises:
        ValueError: When a field is missing, unknown, repeated, formatted or in another order.
    """
    if not isinstance(template, str):
        raise TypeError(f"The template is {shorten(template)} of type {type(template).__name__}; {RULES}.")
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as err:
        raise ValueError(f"The template {shorten(template)} cannot be read ({err}): {RULES}.") from err
    fields = [field for _, field, _, _ in pieces if field is not None]
    if fields not in FIELDS or any(spec or conversion for _, _, spec, conversion in pieces):
        raise ValueError(f"The template {shorten(template)} has the fields {shorten(fields)}: {RULES}.")
    literals = [""]
    for literal, field, _, _ in pieces:  # an escaped brace ends a piece without a field
        literals[-1] += literal
        if field is not None:
            literals.append("")
    texts = len(fields) - 1
    question = literals[texts].rstrip(" ")
    # the space before a label belongs to its first token
    opening = literals[texts][len(question) :]
    return Template(tuple(literals[:texts]), question, opening, literals[-1])
