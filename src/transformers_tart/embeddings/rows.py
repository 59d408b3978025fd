"""Rows of token ids: those of a whole text, and its parts for templates and prompts."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers_tart.embeddings.prompts import Prompt, split_parts
from transformers_tart.inputs.texts import Text


PARTS = "parts"  # of a row: token ids of each text without special tokens


def add_parts(
    rows: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, list[int]]], texts: Sequence[Text]
) -> list[dict[str, Any]]:
    """Add to rows the token ids of each text, or of each text and its pair, for templates."""
    counts = [1 if isinstance(text, str) else 2 for text in texts]
    return [{**row, PARTS: split_parts(part, count)} for row, part, count in zip(rows, parts, counts, strict=True)]


def whole_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the parts for templates."""
    return [{name: ids for name, ids in row.items() if name != PARTS} for row in rows]


def parts_of(row: Mapping[str, Any]) -> list[list[int]]:
    """Return the token ids of a text, or of a text and its pair, which token types distinguish where no parts are."""
    return row[PARTS] if PARTS in row else split_parts(row, 2 if any(row.get("token_type_ids", ())) else 1)


def parts_for_prompt(row: Mapping[str, list[int]], prompt: Prompt) -> list[list[int]]:
    """Return the token ids of a text, or of a text and its pair, as the template of a prompt asks for them.

    Raises:
        ValueError: When the row holds a pair and the template asks for a text, or the other way round.
    """
    types, count = row.get("token_type_ids"), len(prompt.question.before)
    if count == 1 and types is not None and any(types):
        raise ValueError("The template asks for a single text, an input holds a text and its text_pair.")
    if count == 2 and types is None:
        raise ValueError(
            "The template asks for a text and its text_pair: give the model token_type_ids that distinguish them, or "
            'use pipeline("tart-classification") with {"text", "text_pair"}.'
        )
    return split_parts(row, count)
