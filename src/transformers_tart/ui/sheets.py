"""Tables of examples that a visitor of the page pastes or uploads."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers_tart.inputs.columns import LABEL, TableOptions
from transformers_tart.inputs.containers import columns_of_examples
from transformers_tart.inputs.modality import TEXT
from transformers_tart.inputs.tables import Row, read_rows


ENDINGS = (".csv", ".tsv", ".json", ".jsonl")


@dataclass(frozen=True)
class Limits:
    """Largest amounts that a visitor may give."""

    num_bytes: int = 5_000_000  # of a file or a pasted text
    examples: int = 2_000
    classes: int = 100
    texts: int = 200  # to classify at once

    def check_size(self, size: int) -> None:
        """Raise a ValueError when a file or a pasted text is too large."""
        if size > self.num_bytes:
            raise ValueError(f"This is {size / 1e6:.1f} MB; the page takes at most {self.num_bytes / 1e6:g} MB.")

    def check_count(self, count: int, kind: str) -> None:
        """Raise a ValueError when there are too many of a kind: `"examples"`, `"classes"` or `"texts"`."""
        most = getattr(self, kind)
        if count > most:
            raise ValueError(f"There are more {kind} than {most:,}, the most that the page takes; give fewer.")


@dataclass(frozen=True)
class Sheet:
    """A table of examples."""

    columns: tuple[str, ...]
    rows: Sequence[Row]

    def guess_columns(self) -> tuple[str | None, str | None]:
        """Return the likely columns of texts and of labels: by their names, else the longest and the least varied."""
        columns = columns_of_examples(TEXT, TableOptions())
        found = {key: key for key in columns.needed if key in self.columns}
        missing = [key for key in columns.needed if key not in found]
        found |= columns.guess(missing, self.columns, self.rows[0])
        free = [name for name in self.columns if name not in found.values()]
        if TEXT not in found and free:
            found[TEXT] = max(free, key=lambda name: sum(len(str(row.get(name))) for row in self.rows))
            free.remove(found[TEXT])
        if LABEL not in found and free:
            found[LABEL] = min(free, key=lambda name: len({str(row.get(name)) for row in self.rows}))
        return found.get(TEXT), found.get(LABEL)

    def examples(self, text: str | None, label: str | None) -> list[Row]:
        """Return the examples in two columns."""
        if text is None or label is None:
            raise ValueError("Choose the column of the texts and that of the labels first.")
        if text == label:
            raise ValueError(f'The texts and the labels are both in the column "{text}"; choose two columns.')
        if absent := [name for name in (text, label) if name not in self.columns]:
            raise ValueError(f"There are no columns {absent}; choose from {list(self.columns)}.")
        return [{TEXT: row.get(text), LABEL: row.get(label)} for row in self.rows]


def read_paste(text: str, folder: Path, limits: Limits) -> Sheet:
    """Read a table that was pasted: JSON where it begins so, else with tabs or commas between its columns."""
    content = text.strip("\r\n")
    if not content.strip():
        raise ValueError("There are no examples yet: paste a table first, or upload one.")
    ending = ".jsonl" if content.lstrip()[0] in "[{" else ".tsv" if "\t" in content.splitlines()[0] else ".csv"
    path = folder / f"pasted{ending}"
    path.write_text(content, encoding="utf-8", errors="replace", newline="")
    try:
        return read_sheet(path, limits)
    finally:
        path.unlink()


def read_sheet(path: str | os.PathLike | None, limits: Limits) -> Sheet:
    """Read the table of a file."""
    if path is None:
        raise ValueError("There is no file yet: upload one first.")
    if Path(path).suffix.lower() not in ENDINGS:
        raise ValueError(f"The file is a {Path(path).suffix or 'file without ending'}; give {', '.join(ENDINGS)}.")
    limits.check_size(Path(path).stat().st_size)
    try:
        rows = list(islice(read_rows(os.fspath(path)), limits.examples + 1))
    except ValueError as err:
        raise ValueError(str(err).replace(f"{Path(path).parent}{os.sep}", "")) from err
    limits.check_count(len(rows), "examples")
    if not rows:
        raise ValueError('There are no rows. The first line has the names of the columns, such as "text,label".')
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if len(columns) < 2:
        raise ValueError(
            f"There is one column, {list(columns)}; give two, of texts and of labels, with commas or tabs between."
        )
    is_usual = TEXT in columns or LABEL in columns
    if not is_usual and (name := next((each for each in columns if any(row.get(each) == each for row in rows)), None)):
        raise ValueError(
            f'"{name}" in the first line is the value of other lines too. The first line has the names of columns; '
            'add one, such as "text,label".'
        )
    return Sheet(columns, rows)
