"""Files that are whole or not there."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Write a text file that is never seen half written."""
    partial = Path(f"{os.fspath(path)}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


__all__ = ["write_whole"]
