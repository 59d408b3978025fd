"""The code blocks of the README run and print what follows them; its commands and those of the cards parse."""

import shlex
from pathlib import Path

import pytest
from helpers.blocks import check_printed, read_blocks, read_commands, run_python

from transformers_tart.cli import build_parser


ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REASONER_CARD = ROOT / "hub_cards" / "tart-reasoner-kernel" / "README.md"


@pytest.mark.slow
def test__readme__python_blocks__print_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks, names, checked = read_blocks(README), {}, 0
    for (language, code), (following, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language != "python":
            continue
        assert following == "text"
        check_printed(run_python(code, README, names), expected)
        checked += 1
    assert checked == 3


@pytest.mark.parametrize(("path", "count"), [(README, 5), (REASONER_CARD, 13)], ids=["readme", "card"])
def test__readme_and_card__commands__parse(path: Path, count: int) -> None:
    commands = [each for language, block in read_blocks(path) if language == "bash" for each in read_commands(block)]
    ours = [command for command in commands if command.startswith("transformers-tart")]
    assert len(ours) == count
    for command in ours:
        assert build_parser().parse_args(shlex.split(command)[1:]).run


def test__readme__lines__fewer_than_200() -> None:
    assert len(README.read_text().splitlines()) < 200


def test__readme__promise__two_commands_that_install_everything() -> None:
    installs = [line for line in README.read_text().splitlines() if line.startswith("python -m pip install ")]
    assert [line.split("&&")[1].strip() for line in installs] == [
        "transformers-tart demo",
        'python -m pytest -n auto -m "not exhaustive"',
    ]
