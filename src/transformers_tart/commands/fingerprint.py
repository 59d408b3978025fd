"""What an output file was made of, kept in a file beside it: runs of anything else do not continue it."""

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.files import write_whole
from transformers_tart.inputs.tables import file_format


if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FORMAT = 1
ENDING = ".fingerprint.json"
BLOCK = 1 << 20
OPTIONS = ("protocol", "template", "dtype")  # that change answers; batch sizes and devices do not


def fingerprint_of(args: argparse.Namespace, config: "PreTrainedConfig", modality: str) -> dict[str, Any]:
    """Return digests of everything that answers depend on; none of it can be read back.

    Of images and audio by path, the paths count and the folder that they start from, not what the files hold.

    Args:
        args (`argparse.Namespace`):
            Of the command: `input`, `examples`, `model`, `revision` and the options of the model.
        config (`PreTrainedConfig`):
            Of the model.
        modality (`str`):
            What it reads.
    """
    from transformers_tart import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "input": _digest_table(args.input, modality),
        "examples": None if args.examples is None else _digest_table(args.examples, modality),
        "model": _describe_model(args.model, args.revision, config),
        "options": {name: getattr(args, name) for name in OPTIONS},
    }


def _digest_table(path: str, modality: str) -> str:
    facts = [file_format(path)] if modality == "text" else [file_format(path), str(Path(path).parent.resolve())]
    digest = hashlib.sha256(json.dumps(facts).encode())
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _describe_model(name: str, revision: str | None, config: "PreTrainedConfig") -> dict[str, Any]:
    """Return the name and version of a model, and of the backbone that it refers to.

    Of a folder the version is the names, sizes and times of its files: a copy of it counts as another model.
    """
    from transformers_tart.backbones.reference import BackboneReference
    from transformers_tart.configuration_tart import TartBaseConfig

    reference = BackboneReference.of(name, revision)
    commit = getattr(config, "_commit_hash", None)
    facts: dict[str, Any] = {"name": reference.name, "revision": commit or reference.revision}
    if reference.is_local:
        facts = {"files": _digest_folder(Path(str(reference.name)))}
    if isinstance(config, TartBaseConfig) and config.base_model_name_or_path and not config.include_backbone:
        base, backbone_config = config.base_model_name_or_path, config.base_model_config
        if backbone_config is not None:
            facts["backbone"] = _describe_model(base, config.base_model_revision, backbone_config)
    return facts


def _digest_folder(folder: Path) -> str:
    stats = [
        (file.relative_to(folder).as_posix(), file.stat()) for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fingerprint_file(output: Path) -> Path:
    """Return where the fingerprint of an output file is kept."""
    return output.with_name(output.name + ENDING)


def check_fingerprint(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Check that an output file is empty or was made of the same things.

    Raises:
        ValueError: When it was not; the message names what differs.
    """
    if not output.exists() or output.stat().st_size == 0:
        return
    remedy = "give another file, or pass --overwrite to start it anew."
    file = fingerprint_file(output)
    if not file.exists():
        raise ValueError(f"{output} is not empty, and no {file.name} beside it says what it was made of; {remedy}")
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{file} is damaged; {remedy}") from err
    if differing := _differences(kept, fingerprint):
        raise ValueError(f"{output} was made with another {' and another '.join(differing)}; {remedy}")


def _differences(kept: Any, given: Mapping[str, Any]) -> Iterable[str]:
    if not isinstance(kept, dict):
        return list(given)
    names = {"version": "version of transformers-tart", "options": f"choice of --{', --'.join(OPTIONS)}"}
    return [names.get(name, name) for name in given if kept.get(name) != given[name]]


def write_fingerprint(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write the fingerprint of an output file, before its first row."""
    write_whole(fingerprint_file(output), json.dumps(fingerprint, indent=1) + "\n")


def remove_output(output: Path) -> None:
    """Remove an output file and its fingerprint; the latter last, so that a kill leaves no rows without it."""
    for path in (output, fingerprint_file(output)):
        if os.path.lexists(path):
            path.unlink()


__all__ = ["check_fingerprint", "fingerprint_file", "fingerprint_of", "remove_output", "write_fingerprint"]
