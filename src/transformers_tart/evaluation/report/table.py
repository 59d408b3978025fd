"""Tables as text cells, which markdown and HTML show alike."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple


NOTHING = "–"
MAX_MESSAGE = 200  # characters
MARKUP = re.compile(r"([\\|<*`\[\]])")


class Cell(NamedTuple):
    """A cell of a table, as plain text."""

    text: str
    is_best: bool = False  # of its row
    is_code: bool = False
    share: float | None = None  # between 0 and 1, for its shade

    def markdown(self) -> str:
        """Format the cell, escaped and on one line."""
        if self.is_code:
            return "`" + self.text.replace("|", "\\|").replace("`", "'") + "`"
        text = escape_markdown(self.text)
        return re.sub(r"^\S+", r"**\g<0>**", text) if self.is_best else text


@dataclass(frozen=True)
class Table:
    """A header and rows; the columns from `numbers_from` on hold numbers, aligned right."""

    header: list[str]
    rows: list[list[Cell]]
    numbers_from: int = 1

    @classmethod
    def of(cls, header: Sequence[str], rows: Sequence[Sequence[str | Cell]], numbers_from: int = 1) -> "Table":
        """Make a table of cells or their texts."""
        cells = [[Cell(each) if isinstance(each, str) else each for each in row] for row in rows]
        return cls(list(header), cells, numbers_from)

    def markdown(self) -> str:
        """Format the table."""
        words = min(self.numbers_from, len(self.header))
        rule = "|---" * words + "|--:" * (len(self.header) - words) + "|"
        rows = [list(map(escape_markdown, self.header)), *([cell.markdown() for cell in row] for row in self.rows)]
        first, *others = (f"| {' | '.join(row)} |" for row in rows)
        return "\n".join([first, rule, *others])


def escape_markdown(text: str) -> str:
    """Escape markdown, on one line."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))


def shorten(text: str, longest: int = MAX_MESSAGE) -> str:
    """Cut a text that is longer."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def code_cell(text: str) -> Cell:
    """Return a cell with the first line of a message as code."""
    line = (text.strip().splitlines() or [""])[0]
    return Cell(shorten(line), is_code=True) if line else Cell(NOTHING)


def format_seeds(seeds: Sequence[int]) -> str:
    """Format numbers, consecutive ones as a range."""
    ordered = enumerate(sorted(set(seeds)))
    runs = [[seed for _, seed in run] for _, run in groupby(ordered, lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
