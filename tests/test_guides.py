"""The code blocks of the guides run, in order, in a folder with the tables of the guides."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.blocks import check_printed, read_blocks, read_commands, read_files, run_python
from helpers.builders import REAL_MODELS
from helpers.media_backbones import make_images, make_sounds, save_media, to_png, to_wav
from helpers.scripts import CARDS

from transformers_tart.backbones import MINI
from transformers_tart.cli import main


GUIDES = CARDS / "guides"
PAGES = sorted({path.name for path in GUIDES.glob("*.md")} - {"reference.md"})
TEXT_MODELS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "smollm2-135m",
}
PRETRAINED = {**TEXT_MODELS, "facebook/dinov2-small": "dinov2-small", "openai/whisper-base": "whisper-base"}
NOT_RUN = ("pip install", "mkdocs build", "TASK=", "curl ", "transformers-tart export")  # other tests do these


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the tables, pictures and recordings of the guides."""
    monkeypatch.chdir(tmp_path)
    for table in GUIDES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    dark, bright = make_images(6)[0::3], make_images(6)[2::3]
    low, high = make_sounds(9)[0::3], make_sounds(9)[2::3]
    for i in range(6):
        picture = to_png((bright, dark)[i % 2][i // 2 % 2])
        for path in (f"photos/0{i + 1}.png", f"album/{('day', 'night')[i % 2]}/{i}.png"):
            write(tmp_path / path, picture)
    for i, (tone, whistle) in enumerate(zip(low, high, strict=True), 1):
        write(tmp_path / f"clips/low-{i}.wav", to_wav(tone))
        write(tmp_path / f"clips/high-{i}.wav", to_wav(whistle))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test__guide__blocks__run(page: str, folder: Path) -> None:
    models = dict.fromkeys(TEXT_MODELS, MINI)
    for name, family in {"facebook/dinov2-small": "vit", "openai/whisper-base": "whisper"}.items():
        models[name] = Path(save_media(folder / "models" / family, family))
    run_page(GUIDES / page, models, is_checked=False)


@pytest.mark.real
@pytest.mark.parametrize("page", PAGES)
def test__guide__blocks__print_what_is_written(page: str, folder: Path) -> None:
    models = {name: REAL_MODELS / local for name, local in PRETRAINED.items()}
    if not all((path / "config.json").exists() for path in models.values()):
        pytest.skip("needs pretrained models, in the folder that the environment variable REAL_MODELS names")
    run_page(GUIDES / page, models, is_checked=True)


def run_page(path: Path, models: dict[str, Path], is_checked: bool) -> None:
    """Run all blocks of a page with local models in place of those of the Hub."""
    for name, content in read_files(path).items():
        Path(name).write_text(content, encoding="utf-8")
    blocks, names = read_blocks(path), dict[str, object]()
    for (language, code), (following, expected) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        for name, local in models.items():
            code = code.replace(name, str(local))
        if language == "python":
            printed = run_python(code, path, names)
        else:
            assert language in ("bash", "csv", "text")
            printed = "".join(run_command(command) for command in read_commands(code) if language == "bash")
        if following == "text" and is_checked:
            check_printed(printed, expected)
        elif following == "text":
            assert len(printed.splitlines()) == len(expected.splitlines())


def run_command(command: str) -> str:
    """Run a command and return what it prints."""
    program, *arguments = shlex.split(re.sub("  #.*", "", command))
    if command.startswith(NOT_RUN):
        return ""
    if program == "accelerate":
        launched = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *arguments]
        return subprocess.run(launched, check=True, capture_output=True, text=True).stdout
    assert program == "transformers-tart"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(arguments) == 0
    return printed.getvalue()


def write(path: Path, content: bytes) -> None:
    """Write a file in a folder that may not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
