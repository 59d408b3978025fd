"""Workloads of benchmarks: options, models and embeddings, all drawn from one seed."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ViTConfig,
)

from transformers_tart.backbones.forward import backbone_max_length
from transformers_tart.backbones.reference import MINI, BackboneReference
from transformers_tart.bench.inputs import images, texts
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.pipeline_tart import TartClassificationPipeline


POSITIONS = 2048  # longest prompt of the published code, in tokens
RANDOM_PREFIX = "random:"
# Random language models with the tokenizer of the mini backbone, whose vocabulary is padded.
RANDOM: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2-small": lambda: GPT2Config(n_positions=POSITIONS, vocab_size=50257, bos_token_id=0, eos_token_id=0),
}
RANDOM_VISION: dict[str, Callable[[], ViTConfig]] = {
    "vit-tiny": lambda: ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768),
    "vit-base": lambda: ViTConfig(),
}
DECAY = 0.85  # ratio of the scales of successive directions; without gaps the first 16 could not be identified


@dataclass(frozen=True)
class Workload:
    """Options of a measurement.

    Attributes:
        k: size of the support set.
        queries: number of queries.
        naive_queries: maximum number of queries, or of prompts of a kind, that the naive side computes; 0 for all.
        backbone: `mini`, a folder, a Hub id, or the name of a random model after `random:`.
        max_characters: number of characters to which texts in prompts are cut.
        dtype: precision of the backbone, or `auto`.
        device: device of models and embeddings.
        compile: whether to compile the backbone of our side.
        seed: seed of texts, embeddings and random weights.
    """

    k: int
    queries: int
    naive_queries: int = 20
    backbone: str = "mini"
    max_characters: int = 100
    dtype: str = "auto"
    device: torch.device = torch.device("cpu")
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 2 or self.queries < 1 or self.naive_queries < 0 or self.max_characters < 1:
            raise ValueError(
                f"k is {self.k}, queries {self.queries}, naive_queries {self.naive_queries} and max_characters "
                f"{self.max_characters}; they must be at least 2, 1, 0 and 1."
            )

    @property
    def model(self) -> str:
        """Name of the backbone in results."""
        return f"{self.backbone}, ours compiled" if self.compile else self.backbone

    @property
    def labels(self) -> list[int]:
        """Labels of the support set: two classes in turn."""
        return [i % 2 for i in range(self.k)]

    @property
    def reads_images(self) -> bool:
        """`True` if the backbone is an image model."""
        return self.random_name in RANDOM_VISION

    @property
    def random_name(self) -> str | None:
        """Name of a backbone with random weights, `None` for a pretrained one."""
        return self.backbone.removeprefix(RANDOM_PREFIX) if self.backbone.startswith(RANDOM_PREFIX) else None

    @property
    def random_dtype(self) -> torch.dtype:
        """Precision of a backbone with random weights."""
        return torch.float32 if self.dtype == "auto" else getattr(torch, self.dtype)

    def sample(self, total: int) -> list[int]:
        """Return the indices that the naive side computes of `total` items: the middles of equal stretches."""
        count = min(self.naive_queries or total, total)
        return [(2 * i + 1) * total // (2 * count) for i in range(count)]

    def sample_by_length(self, texts: Sequence[str]) -> list[int]:
        """Sample along the order by length, so that the mean length of the sample is that of all texts."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        return sorted(order[i] for i in self.sample(len(texts)))

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Cut texts as prompts do."""
        return [text[: self.max_characters].strip() for text in texts]


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        with_head: whole model, which the published procedure runs.
        backbone: model without the vocabulary head, which this package runs; compiled if asked for.
        tokenizer: its tokenizer.
    """

    with_head: PreTrainedModel
    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_language_model(workload: Workload) -> LanguageModel:
    """Load the backbone of a workload, with positions for the published prompts where they are not learned.

    Raises:
        ValueError: If there is no random model of that name.
    """
    if workload.random_name is not None:
        model, source = _random_model(workload), str(MINI)
    else:
        source = BackboneReference.of(workload.backbone).path
        config = load_auto(AutoConfig, source)
        dtype = workload.dtype if workload.dtype == "auto" else getattr(torch, workload.dtype)
        model = load_auto_model(AutoModelForCausalLM, source, dtype=dtype, **_more_positions(config))
    tokenizer = load_auto(AutoTokenizer, source)
    # the published code ignores the limit of the tokenizer
    tokenizer.model_max_length = backbone_max_length(model) or POSITIONS
    model.to(workload.device).eval()  # type: ignore[arg-type]
    backbone: PreTrainedModel = model.base_model  # type: ignore[assignment]
    if workload.compile:
        backbone = copy.deepcopy(backbone)
        backbone.compile(dynamic=True)
    return LanguageModel(model, backbone, tokenizer)


def _random_model(workload: Workload) -> PreTrainedModel:
    name = workload.random_name
    if name not in RANDOM:
        also = f"; {sorted(RANDOM_VISION)} are for --profile and --memory" if name in RANDOM_VISION else ""
        raise ValueError(f'There is no random language model "{name}"; choose one of {sorted(RANDOM)}{also}.')
    torch.manual_seed(workload.seed)
    return AutoModelForCausalLM.from_config(RANDOM[name](), dtype=workload.random_dtype)


def _more_positions(config: PreTrainedConfig) -> dict[str, int]:
    """Return the config field that extends rotary positions; learned positions cannot be extended."""
    text = config.get_text_config()
    if getattr(text, "rope_parameters", None) and text.max_position_embeddings < POSITIONS:
        return {"max_position_embeddings": POSITIONS}
    return {}


def make_pipeline(workload: Workload, min_words: int, max_words: int) -> TartClassificationPipeline:
    """Build the pipeline of a workload's backbone, the default reasoner and k examples."""
    modality = "image" if workload.reads_images else "text"
    inputs = _inputs(workload, workload.seed, min_words, max_words)
    examples = [{modality: given, "label": str(label)} for given, label in zip(inputs, workload.labels, strict=False)]
    options: dict[str, Any] = {"examples": examples, "device": workload.device}
    if workload.reads_images:
        return TartClassificationPipeline(**_vision_parts(workload), **options)
    model = load_language_model(workload)
    return TartClassificationPipeline(model=model.backbone, tokenizer=model.tokenizer, **options)


def _vision_parts(workload: Workload) -> dict[str, Any]:
    # looking up the image processor warns if torchvision is missing
    from transformers import ViTImageProcessor, ViTModel

    torch.manual_seed(workload.seed)
    backbone = ViTModel(RANDOM_VISION[str(workload.random_name)]())
    backbone.to(device=workload.device, dtype=workload.random_dtype)  # type: ignore[call-arg]
    if workload.compile:
        backbone.compile(dynamic=True)
    return {"model": backbone.eval(), "image_processor": ViTImageProcessor()}


def _inputs(workload: Workload, seed: int, min_words: int, max_words: int) -> Iterator[object]:
    return images(seed) if workload.reads_images else texts(seed, min_words, max_words)


def stream_queries(workload: Workload, min_words: int, max_words: int) -> Iterator[object]:
    """Yield the queries of a workload, each made when it is read."""
    return itertools.islice(_inputs(workload, workload.seed + 1, min_words, max_words), workload.queries)


def draw_embeddings(workload: Workload, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw support embeddings (k, dim), labels (k,) and query embeddings (n, dim) of two classes."""
    generator = torch.Generator().manual_seed(workload.seed)
    labels = torch.tensor(workload.labels)
    count = workload.k + workload.queries
    scales = DECAY ** torch.arange(dim).float()
    latent = torch.randn(count, dim, generator=generator) * scales
    means = torch.randn(2, dim, generator=generator) * scales
    truth = torch.cat([labels, torch.arange(workload.queries) % 2])
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    rows = ((latent + means[truth]) @ rotation).to(workload.device)
    return rows[: workload.k], labels.to(workload.device), rows[workload.k :]


__all__ = ["LanguageModel", "Workload", "draw_embeddings", "load_language_model", "make_pipeline", "stream_queries"]
