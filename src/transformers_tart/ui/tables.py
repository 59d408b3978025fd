"""Tables that the page shows, as HTML in which texts of visitors stand as they are."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


LONGEST_TEXT = 300  # characters in a table
LONGEST_CHOICE = 60
BRACES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;"})  # Gradio fills them in
NUMBER = ' class="tart-number"'


def answers_table(texts: Sequence[str], answers: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a table of text, best label and its score."""
    best = [answer[0] for answer in answers]
    rows = ((cut(text), found["label"], f"{found['score']:.0%}") for text, found in zip(texts, best, strict=True))
    return _table("", ("Text", "Label", "Score"), rows)


def explanation_tables(explanation: dict[str, Any]) -> str:
    """Return a table of the examples that count most, if any, and one of the votes of views and hints."""
    examples = [
        (cut(each.get("text", f"Example {each['index']}")), each["label"], f"{each['weight']:+.2f}")
        for each in explanation["examples"]
    ]
    votes = [
        (f"{kind} {each['name']}", f"{each['label']} ({each['score']:.0%})", f"{each['weight']:+.2f}")
        for kind in ("view", "hint")
        for each in explanation[f"{kind}s"]
    ]
    caption = "Nearest examples. A positive weight counts for the answer, a negative one against it."
    shown = _table(caption, ("Example", "Label", "Weight"), examples) if examples else ""
    caption = "Votes of views and label hints. A negative weight counts against the vote."
    return shown + _table(caption, ("Source", "Vote", "Weight"), votes)


def _table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table whose last column holds numbers."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        marks = [""] * (len(cells) - 1) + [NUMBER]
        written = (f"<{tag}{mark}>{_escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))
        return f"<tr>{''.join(written)}</tr>"

    above = f"<caption>{caption}</caption>" if caption else ""
    head = f"{above}<thead>{line('th', headers)}</thead>"
    return f'<table class="tart-table">{head}<tbody>{"".join(line("td", row) for row in rows)}</tbody></table>'


def _escape(value: Any) -> str:
    return html.escape(str(value)).translate(BRACES)


def text_choices(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Return a short name for each text, and its place."""
    return [(f"{i + 1}. {cut(text, LONGEST_CHOICE)}", i) for i, text in enumerate(texts)]


def cut(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Return a text, or pair of texts, without what follows its longest part that is shown."""
    whole = text if isinstance(text, str) else " / ".join(text)
    return whole if len(whole) <= longest else f"{whole[:longest]}…"
