"""The fingerprint of a `classify` run, in a file beside its output: only a run of the same inputs continues it."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.files import write_whole
from transformers_tart.inputs.tables import file_format


if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FORMAT = 1
ENDING = ".fingerprint.json"
OPTIONS = ("protocol", "template", "dtype")  # which change predictions; batch sizes and devices do not
NAMES = {"version": "version of transformers-tart", "options": f"choice of --{', --'.join(OPTIONS)}"}
REMEDY = "give another file, or pass --overwrite to start it anew."


def fingerprint_of(args: argparse.Namespace, config: "PreTrainedConfig", modality: str) -> dict[str, Any]:
    """Return digests of everything that predictions depend on.

    Of images and audio given by paths, it covers the paths and their folder, but not the contents of the files.
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
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _describe_model(name: str, revision: str | None, config: "PreTrainedConfig") -> dict[str, Any]:
    """Return name and version of a model and of its backbone; of folders, names, sizes and times of the files."""
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
    stats = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    facts = [(path.relative_to(folder).as_posix(), s.st_size, s.st_mtime_ns) for path, s in stats.items()]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fingerprint_file(output: Path) -> Path:
    """Return the path of an output file's fingerprint."""
    return output.with_name(output.name + ENDING)


def check_fingerprint(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Check that an output file is empty or has the same fingerprint; the error names the differences."""
    if not output.exists() or output.stat().st_size == 0:
        return
    file = fingerprint_file(output)
    if not file.exists():
        raise ValueError(f"{output} is not empty and has no {file.name} beside it; {REMEDY}")
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ValueError(f"{file} is damaged; {REMEDY}") from err
    kept = kept if isinstance(kept, dict) else {}
    if differing := [NAMES.get(name, name) for name, value in fingerprint.items() if kept.get(name) != value]:
        raise ValueError(f"{output} was made with another {' and another '.join(differing)}; {REMEDY}")


def write_fingerprint(output: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write the fingerprint of an output file."""
    write_whole(fingerprint_file(output), json.dumps(fingerprint, indent=1) + "\n")


__all__ = ["check_fingerprint", "fingerprint_file", "fingerprint_of", "write_fingerprint"]
