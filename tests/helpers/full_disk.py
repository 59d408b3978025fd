"""A small disk, a tmpfs, that tests fill up."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


SIZE = 1 << 20


def fill(folder: Path, leave: int = 0) -> None:
    """Fill the disk of a folder but for some bytes."""
    with open(folder / "filler", "ab") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(folder).free - leave))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, which only root can mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small tmpfs, and only outside of some containers")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
