"""Code blocks of Markdown pages, and what they print."""

import contextlib
import io
import re
from pathlib import Path

import pytest


BLOCK = re.compile(r"^```(\w+)(?: title=\"(.+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+\.\d+")


def read_blocks(path: Path) -> list[tuple[str, str]]:
    """Return language and content of each block, in order."""
    return [(language, content) for language, _, content in BLOCK.findall(path.read_text(encoding="utf-8"))]


def read_files(path: Path) -> dict[str, str]:
    """Return name and content of each block with a title."""
    return {title: content for _, title, content in BLOCK.findall(path.read_text(encoding="utf-8")) if title}


def read_commands(block: str) -> list[str]:
    """Return the commands of a block of bash, without those before `&&`."""
    lines = block.replace("\\\n", "").splitlines()
    return [line.split("&&")[-1].strip() for line in lines if line.strip()]


def run_python(code: str, path: Path, names: dict[str, object]) -> str:
    """Run a block of Python and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(path), "exec"), names)
    return printed.getvalue()


def check_printed(printed: str, expected: str) -> None:
    """Compare what a block prints with the page; numbers may differ a little."""
    assert NUMBER.sub("", printed) == NUMBER.sub("", expected)
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, expected)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02)
