"""Folders as sentence-transformers writes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer
from tokenizers.processors import TemplateProcessing


KINDS = {kind: f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Normalize", "Dense")}
OLD, NEW = "pooling_mode_{}", "pooling_mode"
# what a module says, as several versions write it, and what it does to the hidden states (length, hidden) of a text
MODULES = {
    "mean": ({OLD.format("cls_token"): False, OLD.format("mean_tokens"): True}, lambda hidden: hidden.mean(0)),
    "first": ({OLD.format("cls_token"): True, OLD.format("mean_tokens"): False}, lambda hidden: hidden[0]),
    "max": ({OLD.format("max_tokens"): True}, lambda hidden: hidden.max(0).values),
    "last": ({OLD.format("lasttoken"): True}, lambda hidden: hidden[-1]),
    "new_first": ({NEW: "cls", "include_prompt": True}, lambda hidden: hidden[0]),
    "new_last": ({NEW: ["lasttoken"]}, lambda hidden: hidden[-1]),
    "none_said": ({}, lambda hidden: hidden.mean(0)),
}
CLS = MODULES["first"][0]


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that puts tokens before and after a text."""
    tokenizer, ends = build_tokenizer(), [("<s>", 1), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    tokenizer.save_pretrained(folder)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def build_with_library(
    folder: Path, *later: Any, max_length: int = 8, lower_case: bool = False, **settings: Any
) -> Any:
    """Build and save a tiny encoder of the library; the test is skipped without it.

    `later` are functions of the modules of the library; `settings` are arguments of `SentenceTransformer`.
    """
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    modules = library.sentence_transformer.modules
    source = folder.with_name(f"{folder.name}_transformer")
    write_tokenizer(source)
    build_backbone("bert").save_pretrained(source)
    first = modules.Transformer(str(source), max_seq_length=max_length, do_lower_case=lower_case)
    torch.manual_seed(3)
    encoder = library.SentenceTransformer(
        modules=[first, *(build(modules) for build in later)], device="cpu", **settings
    )
    encoder.save(str(folder))
    return encoder


def write_encoder(
    folder: Path,
    pooling: dict[str, Any] = CLS,
    *later: str,
    path: str = "",
    first: tuple[str, ...] = (KINDS["Transformer"], KINDS["Pooling"]),
    model_type: str = "bert",
    **settings: Any,
) -> str:
    """A folder as sentence-transformers writes it: a random transformer, a pooling, and later modules."""
    write_tokenizer(folder / path)
    build_backbone(model_type).save_pretrained(folder / path)
    types = [*first, *(KINDS.get(kind, kind) for kind in later)]
    paths = [path, *(f"{i}_{kind.rsplit('.', 1)[-1]}" for i, kind in enumerate(types[1:], 1))]
    rows = [
        {"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(zip(paths, types, strict=True))
    ]
    write_json(folder / "modules.json", rows)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **pooling})
    write_json(folder / path / "sentence_bert_config.json", {"max_seq_length": 8, "do_lower_case": False, **settings})
    return str(folder)
