"""An extension of griffe that writes docstrings with the argument notation of transformers as Markdown."""

import re

import griffe


SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):\n((?: {4}.*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^(\S(?:.*\n)+?) {4}(?=\S)((?:.*\n?)+?)(?=^\S|\Z)", re.MULTILINE)
REFERENCE = re.compile(r"\[`([\w.]+)`\]")
TITLES = {"Args": "Arguments"}


class TransformersNotation(griffe.Extension):
    """Write the sections of a docstring as lists, and link the names in brackets that the reference has."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            text = SECTION.sub(_write_section, obj.docstring.value + "\n")
            obj.docstring.value = REFERENCE.sub(lambda found: _link(obj, found[1]), text)


def _write_section(found: re.Match) -> str:
    body = re.sub(r"^ {4}", "", found[2], flags=re.MULTILINE).strip() + "\n"
    title = f"**{TITLES.get(found[1], found[1])}**\n\n"
    return title + (ENTRY.sub(_write_entry, body) if ENTRY.match(body) else body) + "\n"


def _write_entry(found: re.Match) -> str:
    head, description = (" ".join(part.split()) for part in found.groups())
    return f"- {head} {description}\n"


def _link(obj: griffe.Object, name: str) -> str:
    try:
        path = obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
