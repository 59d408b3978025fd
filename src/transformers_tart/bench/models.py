"""Language models to measure with: named ones, and random ones of a known size."""

import copy
from collections.abc import Callable
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
)

from transformers_tart.backbones import MINI, locate
from transformers_tart.bench.texts import draw_texts
from transformers_tart.bench.workload import Workload
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.tokenization import backbone_max_length


POSITIONS = 2048  # to which the published code cuts a prompt
RANDOM_PREFIX = "random:"
# With the tokenizer of the mini backbone, whose vocabulary is padded.
RANDOM: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2-small": lambda: GPT2Config(n_positions=POSITIONS, vocab_size=50257, bos_token_id=0, eos_token_id=0),
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
        source, revision = locate(name)
        config = AutoConfig.from_pretrained(source, revision=revision)
        dtype = workload.dtype if workload.dtype == "auto" else getattr(torch, workload.dtype)
        model = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype, **_more_positions(config))
    tokenizer = AutoTokenizer.from_pretrained(source)
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
        raise ValueError(f'There is no random model "{name}"; choose one of {sorted(RANDOM)}.')
    dtype = torch.float32 if workload.dtype == "auto" else getattr(torch, workload.dtype)
    torch.manual_seed(workload.seed)
    return AutoModelForCausalLM.from_config(RANDOM[name](), dtype=dtype)


def _more_positions(config: PreTrainedConfig) -> dict[str, int]:
    """Rotary positions go on without end; learned ones are as many as there are."""
    text = config.get_text_config()
    if getattr(text, "rope_parameters", None) and text.max_position_embeddings < POSITIONS:
        return {"max_position_embeddings": POSITIONS}
    return {}


def make_pipeline(workload: Workload, min_words: int, max_words: int) -> TartClassificationPipeline:
    """The pipeline of a workload's backbone, the reasoner inside this package and k examples."""
    model = load_language_model(workload)
    texts = draw_texts(workload.k, workload.seed, min_words, max_words)
    examples = [{"text": text, "label": str(label)} for text, label in zip(texts, workload.labels, strict=True)]
    return TartClassificationPipeline(
        model=model.backbone, tokenizer=model.tokenizer, examples=examples, device=workload.device
    )


__all__ = ["POSITIONS", "RANDOM", "RANDOM_PREFIX", "LanguageModel", "load_language_model", "make_pipeline"]
