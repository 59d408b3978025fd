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
LABEL_KIND = "label_kind"
TENSORS = ("labels", "given_hints", "keys", "weights")  # of which earlier files have the first alone
JSON: dict[str, Any] = {"prompt": Prompt, "phrasing": Phrasing}
# Fields with facts and tensors, by their names in a file.
PARTS: dict[str, tuple[str, Any]] = {"backbone": ("digest", BackboneDigest), "hints": ("hints", LabelHints)}


def write_fields(path: Path, fields: Mapping[str, Any], include_texts: bool = False) -> None:
    """Write the fields of a support set, its texts only if asked."""
    facts: dict[str, Any] = {"label_names": fields["label_names"]}
    if fields[LABEL_KIND] != STRINGS:
        facts[LABEL_KIND] = fields[LABEL_KIND]
    if include_texts:
        facts["texts"] = fields["texts"]
    facts |= {name: fields[name].as_json() for name in JSON if fields[name] is not None}
    if fields["options"] is not None:
        facts["options"] = asdict(fields["options"])
    tensors: dict[str, Tensor] = {name: fields[name] for name in TENSORS if fields[name] is not None}
    tensors |= {"embeddings": fields["embeddings"]} if fields["packed"] is None else fields["packed"].tensors()
    for name, (field, _) in PARTS.items():
        if (part := fields[field]) is not None:
            facts[name] = part.facts()
            tensors |= part.tensors()
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(facts)})


def read_fields(path: str | Path) -> dict[str, Any]:
    """Read the fields of a support set from a file of this or an earlier version."""
    with safe_open(path, framework="pt") as file:
        facts = parse_json((file.metadata() or {})[METADATA_KEY], "its description")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    check_label_names("label_names", facts["label_names"])
    fields: dict[str, Any] = {"label_names": tuple(facts["label_names"]), LABEL_KIND: facts.get(LABEL_KIND, STRINGS)}
    fields |= {name: tensors.get(name) for name in TENSORS}
    if (texts := facts.get("texts")) is not None:
        fields["texts"] = tuple(text if isinstance(text, str) else tuple(text) for text in texts)
    fields |= {name: kind.from_json(facts[name]) for name, kind in JSON.items() if facts.get(name) is not None}
    if facts.get("options") is not None:
        fields["options"] = EmbeddingOptions(**facts["options"])
    for name, (field, kind) in PARTS.items():
        if facts.get(name) is not None:
            fields[field] = kind.from_file(facts[name], tensors)
    # version 0.1 wrote "embeddings" alone
    packed = None if "embeddings" in tensors else PackedEmbeddings.from_tensors(tensors)
    return {**fields, "packed": packed, "embeddings": tensors["embeddings"] if packed is None else packed.unpack()}
