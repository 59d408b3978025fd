"""A backbone and a reasoner that methods share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

from transformers_tart.backbones import locate
from transformers_tart.configuration_media import TartAudioConfig, TartImageConfig
from transformers_tart.embeddings import encode_texts
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.evaluation.prompting import can_be_prompted
from transformers_tart.evaluation.tasks import Item
from transformers_tart.examples import Examples
from transformers_tart.modeling_reasoner import TartReasoner
from transformers_tart.processors import LOADERS
from transformers_tart.towers import load_tower


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
        path, revision = locate(self.name, self.revision)
        return AutoConfig.from_pretrained(path, revision=revision)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        path, revision = locate(self.name, self.revision)
        return AutoTokenizer.from_pretrained(path, revision=revision)

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
    def vision_tower(self) -> PreTrainedModel:
        """What of the backbone reads images."""
        return self._load_tower("image")

    @cached_property
    def audio_tower(self) -> PreTrainedModel:
        """What of the backbone reads audio."""
        return self._load_tower("audio")

    @cached_property
    def reasoner(self) -> TartReasoner:
        """The reasoner, in evaluation mode."""
        return TartReasoner.from_pretrained(self.reasoner_name).to(self.device).eval()

    def load(self, auto_class: Any, **options: Any) -> PreTrainedModel:
        """Load the backbone anew, through any Auto class, in evaluation mode."""
        path, revision = locate(self.name, self.revision)
        return auto_class.from_pretrained(path, revision=revision, dtype=self._dtype, **options).to(self.device).eval()

    @property
    def _dtype(self) -> Any:
        return self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)

    def _load_tower(self, modality: str) -> PreTrainedModel:
        path, revision = locate(self.name, self.revision)
        tower = load_tower(path, modality, revision=revision, dtype=self._dtype)
        return tower.to(self.device).eval()  # type: ignore[arg-type]

    def embed(self, items: Sequence[Item], modality: str) -> Tensor:
        """Embeddings (n, layers, hidden) float32 on the CPU, each item alone, of every layer."""
        options: dict[str, Any] = {"batch_size": self.batch_size}
        if modality == "text":
            options |= {"layers": "all", "max_length": self.max_length}
            return encode_texts(self.backbone, self.tokenizer, items, **options).cpu()  # type: ignore[arg-type]
        path, revision = locate(self.name, self.revision)
        processor = LOADERS[modality][0].from_pretrained(path, revision=revision)
        tower, config = (
            (self.vision_tower, TartImageConfig()) if modality == "image" else (self.audio_tower, TartAudioConfig())
        )
        given = Examples(list(items), [0] * len(items), ())
        return MediaEmbedder(tower, config).embed_examples(given, processor, **options).embeddings.cpu()


__all__ = ["Models"]
