"""The linter, the formatter, the type checker and mkdocs find nothing; skipped where they are not installed."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


def run(command: list[str]) -> None:
    """Run a tool in the root of the repository, which must succeed."""
    if find_spec(command[0]) is None:
        pytest.skip(f"needs {command[0]}, which is not installed")
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test__code__checked__clean(command: list[str]) -> None:
    run(command)


@pytest.mark.slow
def test__guides_and_reference__as_pages__built_without_warnings(tmp_path: Path) -> None:
    run(["mkdocs", "build", "-f", "hub_cards/guides/mkdocs.yml", "--strict", "--site-dir", str(tmp_path)])


@pytest.mark.slow
def test__public_names__in_the_script_of_a_user__strictly_typed() -> None:
    # as of an installed package, whose own code is not checked so strictly
    run(["mypy", "--strict", "--config-file=", "--follow-imports=silent", "tests/helpers/user_script.py"])


def test__pre_commit__ruff__of_the_version_of_the_package() -> None:
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    hook = re.search(r"ruff-pre-commit\s+rev: v([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hook is not None
    assert f"ruff=={hook[1]}" in dev
