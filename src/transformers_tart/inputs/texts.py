"""Texts and pairs of texts, as strings or dictionaries."""

from collections.abc import Mapping
from typing import TypeAlias

from tokenizers.normalizers import Lowercase

from transformers_tart.checks.arguments import well_formed
from transformers_tart.inputs.containers import PAIR, is_missing


Text: TypeAlias = str | tuple[str, str]


def parse_text(item: object, where: str) -> Text:
    """Return the text or text pair of a string or `{"text", "text_pair"}`.

    Raises:
        TypeError: When a text is not a string. The message contains the place, never the content.
        ValueError: When a dict has other keys.
    """
    if not isinstance(item, Mapping):
        return _string(item, where)
    if "text" not in item or not set(item) <= {"text", PAIR}:
        raise ValueError(
            f'{where} has the keys {sorted(map(str, item))}; a dict must have "text" and may have "text_pair".'
        )
    text, pair = _string(item["text"], where), item.get(PAIR)
    return text if pair is None else (text, _string(pair, f"The text_pair of {where}"))


def write_text(text: Text, prompt: str | None = None, lower_case: bool = False) -> Text:
    """Return a text or text pair as it is tokenized: after a prompt, and in lower case if asked."""
    if prompt:
        prompt = well_formed(prompt)
        text = prompt + text if isinstance(text, str) else (prompt + text[0], text[1])
    if not lower_case:
        return text
    lower = Lowercase().normalize_str
    return lower(text) if isinstance(text, str) else (lower(text[0]), lower(text[1]))


def _string(item: object, where: str) -> str:
    if not isinstance(item, str):
        hint = ' Of a pair give {"text": ..., "text_pair": ...}.' if isinstance(item, (list, tuple)) else ""
        empty = f" ({item})" if item is not None and is_missing(item) else ""
        raise TypeError(f"{where} is {type(item).__name__}{empty}; a text must be a string.{hint}")
    return well_formed(item)
