"""Tiny random backbones of every supported kind, built on the spot, and a word tokenizer that fits them."""

import copy
import functools
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerFast, pipeline

from transformers_tart import (
    TartClassificationPipeline,
    TartForSequenceClassification,
    TartReasoner,
    TartReasonerConfig,
)
from transformers_tart.repository import DEFAULT_REASONER


SHARED = Path(__file__).parents[3] / "shared"
REAL_MODELS = Path(os.environ.get("REAL_MODELS", SHARED / "backbones" / "real"))
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


def build_reasoner(architecture: str = "kernel", seed: int = 0, **overrides: object) -> TartReasoner:
    """A small random reasoner of which every weight matters; a newly initialized one reads out nothing."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "n_positions": 34}
    config = TartReasonerConfig(**{**sizes, "architecture": architecture, **overrides})
    torch.manual_seed(seed)
    reasoner = TartReasoner(config)
    with torch.no_grad():
        for parameter in reasoner.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return reasoner.eval()


@functools.cache
def shared_reasoner() -> TartReasoner:
    """The reasoner inside the package, loaded once; tests leave it as it is."""
    return TartReasoner.from_pretrained(DEFAULT_REASONER)


def compose(model_type: str = "llama", reasoner: str = "kernel", **options: object) -> TartForSequenceClassification:
    """A new random backbone with the reasoner inside the package, or with a small random one."""
    given = copy.deepcopy(shared_reasoner()) if reasoner == "kernel" else build_reasoner(reasoner)
    return TartForSequenceClassification.from_backbone(build_backbone(model_type), given, **options)


def save_backbone(folder: Path, model_type: str = "llama", **overrides: object) -> str:
    """Save a backbone and its tokenizer as a repository."""
    build_backbone(model_type, **overrides).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def draw_task(
    support_size: int = 24, query_size: int = 9, dim: int = 12, classes: int = 2, seed: int = 0, gap: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gaussian clusters: support (1, k, dim), its labels, queries (1, n, dim) and theirs; the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    means = gap * torch.randn(classes, dim, generator=generator)
    labels = torch.arange(support_size + query_size) % classes
    rows = means[labels] + torch.randn(len(labels), dim, generator=generator)
    return (
        rows[None, :support_size],
        labels[None, :support_size],
        rows[None, support_size:],
        labels[None, support_size:],
    )


def make_pipeline(model: object = None, **options: object) -> TartClassificationPipeline:
    """A pipeline fitted to random examples; of a new composition when no model is given."""
    options = {"tokenizer": build_tokenizer(), "examples": make_examples(), **options}
    return pipeline("tart-classification", model=compose() if model is None else model, **options)


def score_all(classify: TartClassificationPipeline, texts: Iterable, **options: object) -> torch.Tensor:
    """Probabilities (n, classes), the classes sorted by name."""
    results = [sorted(result, key=lambda r: r["label"]) for result in classify(texts, top_k=None, **options)]
    return torch.tensor([[r["score"] for r in result] for result in results])


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
