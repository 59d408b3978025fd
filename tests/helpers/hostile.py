"""Untrusted repositories with code of their own, which leaves a mark when it runs."""

import json
from pathlib import Path
from typing import Any

from helpers.builders import build_backbone, build_tokenizer
from helpers.media_backbones import save_media


# What each module of hostile code does first.
MARK = """
import os
from pathlib import Path

Path(os.environ["MARK"]).write_text(__name__)
"""
CODE = (
    MARK
    + """
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast, ViTImageProcessor, Wav2Vec2FeatureExtractor


class EvilConfig(GPT2Config):
    model_type = "evil"


class EvilModel(GPT2Model):
    config_class = EvilConfig


class EvilTokenizer(PreTrainedTokenizerFast):
    pass


class EvilImageProcessor(ViTImageProcessor):
    pass


class EvilFeatureExtractor(Wav2Vec2FeatureExtractor):
    pass
"""
)


def edit(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON file; `None` removes one."""
    found = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))


def save_coded_model(folder: Path) -> Path:
    """Write a language model of a type that only its own code defines."""
    build_backbone("gpt2").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    code = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    edit(folder / "config.json", model_type="evil", auto_map=code)
    (folder / "evil.py").write_text(CODE)
    return folder


def save_coded_processor(folder: Path, name: str) -> Path:
    """Write a model of transformers, with a tokenizer, image processor or feature extractor of its own code."""
    if name == "gpt2":
        build_backbone("gpt2").save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        fields = {"auto_map": {"AutoTokenizer": [None, "evil.EvilTokenizer"]}, "tokenizer_class": "EvilTokenizer"}
        edit(folder / "tokenizer_config.json", **fields)
    else:
        kind = {"vit": "ImageProcessor", "wav2vec2": "FeatureExtractor"}[name]
        save_media(folder, name)
        key = "image_processor_type" if name == "vit" else "feature_extractor_type"
        fields = {"auto_map": {f"Auto{kind}": f"evil.Evil{kind}"}, key: f"Evil{kind}"}
        edit(folder / "preprocessor_config.json", **fields)
    (folder / "evil.py").write_text(CODE)
    return folder
