"""SHA-256 of the small files of a repository, stored in its config to detect flipped bits and swapped files."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, cached_file

from transformers_tart.errors import CorruptFileError


FIELD = "sha256"
FILES = ("model*.safetensors", "support.safetensors")


def add_checksums(folder: Path) -> None:
    """Write the sums of the files in a folder that is being saved into its config."""
    path = folder / CONFIG_NAME
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields[FIELD] = {file.name: _sum(file) for pattern in FILES for file in sorted(folder.glob(pattern))}
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_sums(name: str | os.PathLike, checksums: Mapping[str, str], **hub: Any) -> None:
    """Check that files of a repository have the SHA-256 that their config stores.

    Raises:
        CorruptFileError: When one is another, or missing.
    """
    for file, expected in checksums.items():
        try:
            found = _sum(Path(str(cached_file(name, file, **hub))))
        except OSError as err:
            raise CorruptFileError(
                f"{CONFIG_NAME} of {name} gives a checksum of {file}, which cannot be read: {err}\nDownload the "
                "repository again (force_download=True), or save it again."
            ) from err
        if found != expected:
            raise CorruptFileError(
                f"{file} of {name} is not the file that was saved: it is damaged, or of another model. Download it "
                f"again (force_download=True), or save it again; if you changed it yourself, delete {FIELD} from "
                f"{CONFIG_NAME}."
            )


def _sum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
