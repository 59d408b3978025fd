"""Tiny random backbones of every supported kind, built on the spot, and a word tokenizer that fits them."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import gzip
import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast

import transformers_tart  # noqa: F401  registers everything


SHARED = Path(__file__).parents[2] / "shared"
VOCABULARY_SIZE = 99

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY_SIZE}
GROUPED = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8}
BACKBONES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY_SIZE},
    "gpt_neox": {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 64,
        "window_size": 16,
        "vocab_size": VOCABULARY_SIZE,
    },
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY_SIZE},
    "llama": GROUPED,
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "qwen3": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 8},
    "gemma3_text": {**GROUPED, "sliding_window": 8},
    "bert": {**SIZES, "intermediate_size": 64, "max_position_embeddings": 64},
}
WORDS = [f"w{i}" for i in range(VOCABULARY_SIZE - 4)]


def build_backbone(model_type: str, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A tiny random backbone, with ids of special tokens inside its vocabulary."""
    fields = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **BACKBONES[model_type], **overrides}
    config = AutoConfig.for_model(model_type, **fields)
    torch.manual_seed(seed)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual 0.02 would make all texts alike
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return model.eval()


def build_tokenizer(**options: object) -> PreTrainedTokenizerFast:
    """A word tokenizer with padding, beginning and end tokens; none is added to texts."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, **{word: i + 4 for i, word in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **options}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{k: v for k, v in names.items() if v is not None})


def make_texts(count: int, seed: int = 0, max_words: int = 12) -> list[str]:
    """Random word texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, max_words + 1, (count,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=generator)) for n in lengths]


def make_examples(count: int = 12, labels: tuple[str, ...] = ("ham", "spam"), seed: int = 0) -> list[dict[str, str]]:
    """Random texts, the classes in turn."""
    return [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(make_texts(count, seed))]


def read_shared_texts(name: str) -> list[dict[str, str]]:
    """Rows of a real text set; the test is skipped where it is absent."""
    path = SHARED / "data" / "text" / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"needs the real text set {name}, which is absent here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Each kind of backbone in turn."""
    return build_backbone(request.param)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """The word tokenizer."""
    return build_tokenizer()


@pytest.fixture
def stories_folder() -> str:
    """The real tiny language model; the test is skipped where it is absent."""
    path = SHARED / "backbones" / "stories260K"
    if not path.exists():
        pytest.skip("needs the real tiny language model, which is absent here")
    return str(path)
