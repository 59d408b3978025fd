"""Models to measure with: named language models, and random ones of text and images of a known size."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
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
from transformers_tart.bench.images import pictures
from transformers_tart.bench.inputs import texts
from transformers_tart.bench.workload import Workload
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.pipeline_tart import TartClassificationPipeline


POSITIONS = 2048  # to which the published code cuts a prompt
RANDOM_PREFIX = "random:"
# With the tokenizer of the mini backbone, whose vocabulary is padded.
RANDOM: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2-small": lambda: GPT2Config(n_positions=POSITIONS, vocab_size=50257, bos_token_id=0, eos_token_id=0),
}
# Which read pictures.
RANDOM_VISION: dict[str, Callable[[], ViTConfig]] = {
    "vit-tiny": lambda: ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768),
    "vit-base": lambda: ViTConfig(),
}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model, the part of it below the vocabulary head, and its tokenizer.

    Attributes:
        with_head: the whole, as the published procedure runs it.
        backbone: what this package runs; compiled if that was asked for, while `with_head` is not.
        tokenizer: of both.
    """

    with_head: PreTrainedModel
    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_language_model(workload: Workload) -> LanguageModel:
    """Load the backbone of a workload, with room for the prompts of the published code where it can be had.

    Raises:
        ValueError: When the name is that of a random model which is not known.
    """
    name = workload.backbone
    if name.startswith(RANDOM_PREFIX):
        model, source = _random_model(name.removeprefix(RANDOM_PREFIX), workload), str(MINI)
    else:
        source = BackboneReference.of(name).path
        config = load_auto(AutoConfig, source)
        dtype = workload.dtype if workload.dtype == "auto" else getattr(torch, workload.dtype)
        model = load_auto_model(AutoModelForCausalLM, source, dtype=dtype, **_more_positions(config))
    tokenizer = load_auto(AutoTokenizer, source)
    # the published code takes no notice of the tokenizer's own limit
    tokenizer.model_max_length = backbone_max_length(model) or POSITIONS
    model.to(workload.device).eval()  # type: ignore[arg-type]
    backbone: PreTrainedModel = model.base_model  # type: ignore[assignment]
    if workload.compile:
        backbone = copy.deepcopy(backbone)
        backbone.compile(dynamic=True)
    return LanguageModel(model, backbone, tokenizer)


def _random_model(name: str, workload: Workload) -> PreTrainedModel:
    if name not in RANDOM:
        also = f"; {sorted(RANDOM_VISION)} are for --profile and --memory" if name in RANDOM_VISION else ""
        raise ValueError(f'There is no random language model "{name}"; choose one of {sorted(RANDOM)}{also}.')
    dtype = torch.float32 if workload.dtype == "auto" else getattr(torch, workload.dtype)
    torch.manual_seed(workload.seed)
    return AutoModelForCausalLM.from_config(RANDOM[name](), dtype=dtype)


def _more_positions(config: PreTrainedConfig) -> dict[str, int]:
    """Rotary positions go on without end; learned ones are as many as there are."""
    text = config.get_text_config()
    if getattr(text, "rope_parameters", None) and text.max_position_embeddings < POSITIONS:
        return {"max_position_embeddings": POSITIONS}
    return {}


def reads_pictures(workload: Workload) -> bool:
    """Whether the backbone of a workload is one of images."""
    return workload.backbone.removeprefix(RANDOM_PREFIX) in RANDOM_VISION


def make_pipeline(workload: Workload, min_words: int, max_words: int) -> TartClassificationPipeline:
    """The pipeline of a workload's backbone, the reasoner inside this package and k examples."""
    if reads_pictures(workload):
        return _vision_pipeline(workload)
    model = load_language_model(workload)
    drawn = itertools.islice(texts(workload.seed, min_words, max_words), workload.k)
    examples = [{"text": text, "label": str(label)} for text, label in zip(drawn, workload.labels, strict=True)]
    return TartClassificationPipeline(
        model=model.backbone, tokenizer=model.tokenizer, examples=examples, device=workload.device
    )


def _vision_pipeline(workload: Workload) -> TartClassificationPipeline:
    # transformers warns where torchvision is missing, as soon as the name is looked up
    from transformers import ViTImageProcessor, ViTModel

    dtype = torch.float32 if workload.dtype == "auto" else getattr(torch, workload.dtype)
    torch.manual_seed(workload.seed)
    backbone = ViTModel(RANDOM_VISION[workload.backbone.removeprefix(RANDOM_PREFIX)]())
    backbone.to(device=workload.device, dtype=dtype)  # type: ignore[call-arg]
    if workload.compile:
        backbone.compile(dynamic=True)
    drawn = itertools.islice(pictures(workload.seed), workload.k)
    examples = [{"image": image, "label": str(label)} for image, label in zip(drawn, workload.labels, strict=True)]
    return TartClassificationPipeline(
        model=backbone.eval(), image_processor=ViTImageProcessor(), examples=examples, device=workload.device
    )


def stream_queries(workload: Workload, min_words: int, max_words: int) -> Iterator[object]:
    """As many texts or pictures as a workload has queries, made as they are read."""
    seed = workload.seed + 1
    source = pictures(seed) if reads_pictures(workload) else texts(seed, min_words, max_words)
    return itertools.islice(source, workload.queries)


__all__ = [
    "POSITIONS",
    "RANDOM",
    "RANDOM_PREFIX",
    "RANDOM_VISION",
    "LanguageModel",
    "load_language_model",
    "make_pipeline",
    "reads_pictures",
    "stream_queries",
]
