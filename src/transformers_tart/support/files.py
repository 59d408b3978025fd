"""Files of support sets: tensors in safetensors, everything else in one JSON object of its metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.checks.bounds import parse_json
from transformers_tart.checks.label_names import check_label_names
from transformers_tart.embeddings.packing import PackedEmbeddings
from transformers_tart.embeddings.phrases import Phrasing
from transformers_tart.embeddings.prompts import Prompt
from transformers_tart.hints.base import LabelHints
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.labels import STRINGS


# One key for all: safetensors writes several in random order, and the same support set must give the same bytes.
METADATA_KEY = "support_set"
GIVEN_HINTS = "given_hints"
KEYS = "keys"  # absent from earlier files
LABEL_KIND = "label_kind"
WEIGHTS = "weights"


def write_fields(path: Path, fields: Mapping[str, Any], include_texts: bool = False) -> None:
    """Write the fields of a support set, its texts only if asked."""
    facts: dict[str, Any] = {"label_names": fields["label_names"]}
    if fields["label_kind"] != STRINGS:
        facts[LABEL_KIND] = fields["label_kind"]
    if include_texts:
        facts["texts"] = fields["texts"]
    for name in ("prompt", "phrasing"):
        if fields[name] is not None:
            facts[name] = fields[name].as_json()
    if fields["options"] is not None:
        facts["options"] = asdict(fields["options"])
    tensors: dict[str, Tensor] = {"labels": fields["labels"].contiguous().cpu()}
    if fields["packed"] is None:
        tensors["embeddings"] = fields["embeddings"].contiguous().cpu()
    else:
        tensors |= fields["packed"].tensors()
    if fields["digest"] is not None:
        facts["backbone"] = fields["digest"].facts()
        tensors |= fields["digest"].tensors()
    if fields["hints"] is not None:
        facts["hints"] = fields["hints"].facts()
        tensors |= fields["hints"].tensors()
    if fields["given_hints"] is not None:
        tensors[GIVEN_HINTS] = fields["given_hints"].contiguous().cpu()
    if fields["keys"] is not None:
        tensors[KEYS] = fields["keys"].contiguous().cpu()
    if fields["weights"] is not None:
        tensors[WEIGHTS] = fields["weights"].contiguous().cpu()
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(facts)})


def read_fields(path: str | Path) -> dict[str, Any]:
    """Read the fields of a support set from a file of this or an earlier version."""
    with safe_open(path, framework="pt") as file:
        facts = parse_json((file.metadata() or {})[METADATA_KEY], "its description")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    check_label_names("label_names", facts["label_names"])
    texts = facts.get("texts")
    fields: dict[str, Any] = {"label_names": tuple(facts["label_names"]), "labels": tensors["labels"]}
    if LABEL_KIND in facts:
        fields[LABEL_KIND] = facts[LABEL_KIND]
    fields |= {"weights": tensors.get(WEIGHTS), "keys": tensors.get(KEYS)}
    if texts is not None:
        fields["texts"] = tuple(text if isinstance(text, str) else tuple(text) for text in texts)
    readers = {"prompt": Prompt.from_json, "phrasing": Phrasing.from_json}
    fields |= {name: read(facts[name]) for name, read in readers.items() if facts.get(name) is not None}
    if facts.get("options") is not None:
        fields["options"] = EmbeddingOptions(**facts["options"])
    if facts.get("backbone") is not None:
        fields["digest"] = BackboneDigest.from_file(facts["backbone"], tensors)
    if facts.get("hints") is not None:
        fields["hints"] = LabelHints.from_file(facts["hints"], tensors)
        fields["given_hints"] = tensors.get(GIVEN_HINTS)
    # version 0.1 wrote "embeddings" alone
    packed = None if "embeddings" in tensors else PackedEmbeddings.from_tensors(tensors)
    return {**fields, "packed": packed, "embeddings": tensors["embeddings"] if packed is None else packed.unpack()}
