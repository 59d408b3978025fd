"""The linter, the formatter and the type checker find nothing; skipped where they are not installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test__code__checked__clean(command: list[str]) -> None:
    if find_spec(command[0]) is None:
        pytest.skip(f"needs {command[0]}, which is not installed")
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
