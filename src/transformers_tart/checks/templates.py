"""Templates: of labeled examples in prompts, and of inputs that are read alone."""

from string import Formatter
from typing import Any, NamedTuple

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.bounds import MAX_TEMPLATE


TEMPLATE = "Sentence: {text}\nLabel: {label}\n"  # of the TART paper
PAIR_TEMPLATE = "Sentence: {text}\nSentence: {text_pair}\nLabel: {label}\n"
FIELDS = (["text", "label"], ["text", "text_pair", "label"])
RULES = (
    "a template holds {text}, for pairs then {text_pair}, and then {label}, each once and with nothing else in braces"
)

VIEW_RULES = (
    "a template of a view holds {text}, for pairs then {text_pair}, once or several times, and nothing else in braces"
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
    literals, fields = _split(template, RULES)
    if fields not in FIELDS:
        raise ValueError(f"The template {shorten(template)} has the fields {shorten(fields)}: {RULES}.")
    texts = len(fields) - 1
    question = literals[texts].rstrip(" ")
    # the space before a label belongs to its first token
    opening = literals[texts][len(question) :]
    return Template(tuple(literals[:texts]), question, opening, literals[-1])


def parse_view_template(template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the literals of a template without a label, one more than fields, and its fields in order.

    Raises:
        ValueError: When a field is missing, unknown, formatted or in another order.
    """
    literals, fields = _split(template, VIEW_RULES)
    copy = ["text", "text_pair"] if "text_pair" in fields else ["text"]
    if not fields or fields != copy * (len(fields) // len(copy)):
        raise ValueError(f"The template {shorten(template)} has the fields {shorten(fields)}: {VIEW_RULES}.")
    return tuple(literals), tuple(fields)


def template_fields(template: str) -> list[str]:
    """Return the fields of a template of either kind."""
    return _split(template, f"{RULES}; {VIEW_RULES}")[1]


def _split(template: str, rules: str) -> tuple[list[str], list[str]]:
    """Return the literals of a template and its fields."""
    if not isinstance(template, str):
        raise TypeError(f"The template is {shorten(template)} of type {type(template).__name__}; {rules}.")
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as err:
        raise ValueError(f"The template {shorten(template)} cannot be read ({err}): {rules}.") from err
    fields = [field for _, field, _, _ in pieces if field is not None]
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise ValueError(f"The template {shorten(template)} formats its fields {shorten(fields)}: {rules}.")
    literals = [""]
    for literal, field, _, _ in pieces:  # an escaped brace ends a piece without a field
        literals[-1] += literal
        if field is not None:
            literals.append("")
    return literals, fields


def check_hypothesis_template(template: Any) -> str:
    """Return a template of label texts, in which `{}` stands for the text.

    Raises:
        TypeError: When it is no string.
        ValueError: When it has no `{}`, or cannot be read.
    """
    if not isinstance(template, str):
        raise TypeError(f"hypothesis_template is {type(template).__name__}; it must be a string with {{}}.")
    try:
        filled = [template.format(word) for word in ("a", "b")]
    except (LookupError, ValueError) as err:
        raise ValueError(f"hypothesis_template is {shorten(template)}, which cannot be read: {err}") from err
    if filled[0] == filled[1] or len(template) > MAX_TEMPLATE:
        raise ValueError(
            f"hypothesis_template is {shorten(template)}; it must have {{}} in place of the label, and at most "
            f"{MAX_TEMPLATE} characters."
        )
    return template
