"""Workloads of benchmarks: options, inputs, models and embeddings, all drawn from one seed."""

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
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
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.loading.embedded import MINI
from transformers_tart.pipeline_tart import TartClassificationPipeline


POSITIONS = 2048  # longest prompt of the published code, in tokens
RANDOM_PREFIX = "random:"
# Random language models with the tokenizer of the mini backbone, whose vocabulary is padded.
RANDOM: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2-small": lambda: GPT2Config(n_positions=POSITIONS, vocab_size=50257, bos_token_id=0, eos_token_id=0)
}
RANDOM_VISION: dict[str, Callable[[], ViTConfig]] = {
    "vit-tiny": lambda: ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768),
    "vit-base": lambda: ViTConfig(),
}
DECAY = 0.85  # ratio of the scales of successive directions; without gaps the first 16 could not be identified
# Phrases that begin, continue and end a sentence, without the label words of the published prompts.
PHRASES = [
    part.split("|")
    for part in (
        "the old teacher|my neighbor|a young doctor|the last train|our garden|the small shop|her dog|a quiet river|"
        "the evening news|the second film|this phone|the service|his brother|the weather",
        "waits for|remembers|follows|changes|opens|brings back|leaves behind|looks at|misses|pays for|talks about|"
        "works with|hardly notices|asks for",
        "the green door|a cup of tea|the long road home|nothing at all|an empty house|the first page|two large boxes|"
        "a better answer|the broken window|some fresh bread|the whole story|a new ticket",
        "in the morning|without a word|because it rained|as usual|for the third time|near the station|"
        "while others sleep|on a cold day|until late at night|with great care||",
    )
]
SIDES = (96, 384)  # pixels
COARSE_SIDE = 8


@dataclass(frozen=True)
class Workload:
    """Options of a measurement."""

    k: int  # size of the support set
    queries: int
    naive_queries: int = 20  # maximum number, or of prompts of a kind, that the naive side computes; 0 for all
    backbone: str = "mini"  # a folder, a Hub id, or the name of a random model after `random:`
    max_characters: int = 100  # to which texts in prompts are truncated
    words: Sequence[int] = (1, 120)  # fewest and most of a text that stands alone
    dtype: str = "auto"  # of the backbone
    device: torch.device = torch.device("cpu")
    compile: bool = False  # the backbone of our side
    seed: int = 0  # of texts, embeddings and random weights

    def __post_init__(self) -> None:
        if not 1 <= self.words[0] <= self.words[1]:
            raise ValueError(f"words is {list(self.words)}; give the fewest and the most words of a text, from 1.")
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


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer."""

    with_head: PreTrainedModel  # which the published procedure runs
    backbone: PreTrainedModel  # without the vocabulary head, which this package runs; compiled if asked for
    tokenizer: PreTrainedTokenizerBase


def load_language_model(workload: Workload) -> LanguageModel:
    """Load the backbone of a workload, with positions for the published prompts where they are not learned."""
    name = workload.random_name
    if name is None:
        source = BackboneReference.of(workload.backbone).path
        text = load_auto(AutoConfig, source).get_text_config()
        is_short = getattr(text, "rope_parameters", None) and text.max_position_embeddings < POSITIONS
        positions = {"max_position_embeddings": POSITIONS} if is_short else {}  # rotary ones can be extended
        model = load_auto_model(AutoModelForCausalLM, source, dtype=workload.dtype, **positions)
    elif name in RANDOM:
        torch.manual_seed(workload.seed)
        model, source = AutoModelForCausalLM.from_config(RANDOM[name](), dtype=workload.random_dtype), str(MINI)
    else:
        also = f"; {sorted(RANDOM_VISION)} are for --profile and --memory" if name in RANDOM_VISION else ""
        raise ValueError(f'There is no random language model "{name}"; choose one of {sorted(RANDOM)}{also}.')
    tokenizer = load_auto(AutoTokenizer, source)
    # the published code ignores the limit of the tokenizer
    tokenizer.model_max_length = backbone_max_length(model) or POSITIONS
    model.to(workload.device).eval()
    backbone: PreTrainedModel = model.base_model
    if workload.compile:
        backbone = copy.deepcopy(backbone)
        backbone.compile(dynamic=True)
    return LanguageModel(model, backbone, tokenizer)


def texts(seed: int, min_words: int, max_words: int) -> Iterator[str]:
    """Yield texts without end, of `min_words` to `max_words` words."""
    lengths, draw = random.Random(f"lengths {seed}"), random.Random(seed)
    while True:
        count, words = lengths.randint(min_words, max_words), list[str]()
        while len(words) < count:
            sentence = " ".join(draw.choice(parts) for parts in PHRASES).strip()
            words += f"{sentence.capitalize()}.".split()
        yield " ".join(words[:count])


def draw_texts(count: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Return the first `count` of [`texts`]."""
    return list(itertools.islice(texts(seed, min_words, max_words), count))


def images(seed: int) -> Iterator[Image.Image]:
    """Yield images without end, of many sizes and as smooth as photographs."""
    rng = np.random.default_rng(seed)
    while True:
        width, height = (int(side) for side in rng.integers(*SIDES, size=2))
        coarse = rng.integers(0, 256, (COARSE_SIDE, COARSE_SIDE, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def make_pipeline(workload: Workload, min_words: int, max_words: int) -> TartClassificationPipeline:
    """Build the pipeline of a workload's backbone, the default reasoner and k examples."""
    modality = "image" if workload.reads_images else "text"
    inputs = _inputs(workload, workload.seed, min_words, max_words)
    examples = [{modality: given, "label": str(label)} for given, label in zip(inputs, workload.labels, strict=False)]
    if workload.reads_images:
        parts = _vision_parts(workload)
    else:
        model = load_language_model(workload)
        parts = {"model": model.backbone, "tokenizer": model.tokenizer}
    return TartClassificationPipeline(**parts, examples=examples, device=workload.device)


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
