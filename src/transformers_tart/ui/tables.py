"""Rows of the tables that the page shows."""

from collections.abc import Sequence
from typing import Any


LONGEST_TEXT = 300  # characters in a table
LONGEST_CHOICE = 60

ANSWER_HEADERS = ["Text", "Label", "Score"]
EXAMPLE_HEADERS = ["Example", "Label", "Weight"]
VOTE_HEADERS = ["Source", "Weight", "Vote", "Score"]


def answer_rows(texts: Sequence[str], answers: Sequence[Sequence[dict[str, Any]]]) -> list[list[str]]:
    """Return text, best label and its score for each text."""
    best = [answer[0] for answer in answers]
    pairs = zip(texts, best, strict=True)
    return [[cut(text), str(found["label"]), f"{found['score']:.0%}"] for text, found in pairs]


def example_rows(explanation: dict[str, Any]) -> list[list[str]]:
    """Return text, label and weight of the examples that count most."""
    return [
        [cut(each.get("text", f"example {each['index']}")), str(each["label"]), f"{each['weight']:+.2f}"]
        for each in explanation["examples"]
    ]


def vote_rows(explanation: dict[str, Any]) -> list[list[str]]:
    """Return name, weight, label and score of each view and each hint."""
    return [
        [f"{kind}: {each['name']}", f"{each['weight']:+.2f}", str(each["label"]), f"{each['score']:.0%}"]
        for kind in ("view", "hint")
        for each in explanation[f"{kind}s"]
    ]


def text_choices(texts: Sequence[str]) -> list[tuple[str, int]]:
    """Return a short name for each text, and its place."""
    return [(f"{i + 1}. {cut(text, LONGEST_CHOICE)}", i) for i, text in enumerate(texts)]


def cut(text: Any, longest: int = LONGEST_TEXT) -> str:
    """Return a text, or pair of texts, without what follows its longest part that is shown."""
    whole = text if isinstance(text, str) else " / ".join(text)
    return whole if len(whole) <= longest else f"{whole[:longest]}…"
