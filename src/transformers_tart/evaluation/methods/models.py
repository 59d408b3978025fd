"""A backbone and a reasoner that methods share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.configuration_tart import TartAudioConfig, TartBaseConfig, TartImageConfig
from transformers_tart.embeddings import encode_texts
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.evaluation.prompting import can_be_prompted
from transformers_tart.evaluation.tasks import Item
from transformers_tart.inputs.examples import Examples
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.loading.report import load_and_report
from transformers_tart.reasoners.modeling_reasoner import TartReasoner


@dataclass(frozen=True)
class Models:
    r"""
    A backbone and a reasoner, loaded when a method first asks for them.

    Args:
        name (`str`):
            Hub id or folder of the backbone, or `"mini"`.
        revision (`str`, *optional*):
            Of its repository.
        reasoner (`str`, *optional*, defaults to `"kernel"`):
            As [`TartReasoner.from_pretrained`] takes it.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Precision of the backbone.
        device (`torch.device`, *optional*, defaults to the CPU):
            Where everything runs.
        batch_size (`int`, *optional*):
            Most texts of a forward pass.
        max_length (`int`, *optional*):
            Longest text in tokens.
    """

    name: str
    revision: str | None = None
    reasoner_name: str = "kernel"
    dtype: str = "auto"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None
    max_length: int | None = None

    @property
    def title(self) -> str:
        """The name without the folders above it."""
        return Path(self.name).name if Path(self.name).exists() else self.name

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The backbone's config."""
        return load_auto(AutoConfig, self._reference.path, **self._reference.place)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return load_auto(AutoTokenizer, self._reference.path, **self._reference.place)

    @cached_property
    def language_model(self) -> PreTrainedModel:
        """The backbone with its vocabulary head.

        Raises:
            ValueError: When it has none.
        """
        if not can_be_prompted(self.config):
            raise ValueError(
                f"{self.title} is no causal language model with a vocabulary head: it cannot be prompted."
            )
        return self.load(AutoModelForCausalLM)

    @cached_property
    def backbone(self) -> PreTrainedModel:
        """The frozen backbone: the same weights as the language model's, where it is one."""
        if can_be_prompted(self.config):
            return self.language_model.base_model  # type: ignore[return-value]
        return self.load(AutoModel)

    @cached_property
    def images(self) -> tuple[MediaEmbedder, Any]:
        """What reads images: the tower of the backbone, and its processor."""
        return self._load_media(TartImageConfig())

    @cached_property
    def audio(self) -> tuple[MediaEmbedder, Any]:
        """What reads audio: the tower of the backbone, and its feature extractor."""
        return self._load_media(TartAudioConfig())

    @cached_property
    def reasoner(self) -> TartReasoner:
        """The reasoner, in evaluation mode."""
        return TartReasoner.from_pretrained(self.reasoner_name).to(self.device).eval()

    def load(self, auto_class: Any, **options: Any) -> PreTrainedModel:
        """Load the backbone anew, through any Auto class, in evaluation mode."""
        loading = {**self._reference.place, "dtype": self._dtype, **options}
        return (
            load_and_report(partial(load_auto_model, auto_class), self._reference.path, **loading)
            .to(self.device)
            .eval()
        )

    @property
    def _dtype(self) -> Any:
        return self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)

    @property
    def _reference(self) -> BackboneReference:
        return BackboneReference.of(self.name, self.revision)

    def _load_media(self, config: TartBaseConfig) -> tuple[MediaEmbedder, Any]:
        tower = self._reference.load(config.modality, dtype=self._dtype)
        tower.to(self.device).eval()  # type: ignore[arg-type]
        return MediaEmbedder(tower, config), self._reference.load_processor(config.modality)

    def embed(self, items: Sequence[Item], modality: str) -> Tensor:
        """Embeddings (n, layers, hidden) float32 on the CPU, each item alone, of every layer."""
        options: dict[str, Any] = {"batch_size": self.batch_size}
        if modality == "text":
            options |= {"layers": "all", "max_length": self.max_length}
            return encode_texts(self.backbone, self.tokenizer, items, **options).cpu()  # type: ignore[arg-type]
        embedder, processor = self.images if modality == "image" else self.audio
        given = Examples(list(items), [0] * len(items), ())
        return embedder.embed_examples(given, processor, **options).embeddings.cpu()


__all__ = ["Models"]
