"""The model to evaluate: composed as the pipeline composes it, with its processor and its language model."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.dtype import with_dtype
from transformers_tart.backbones.reference import BackboneReference, load_processor
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.views import compose_views
from transformers_tart.evaluation.prompting import can_be_prompted
from transformers_tart.evaluation.tasks import MODALITIES
from transformers_tart.inputs.views import VIEW_ARGUMENTS
from transformers_tart.loading.auto import find_model, load_auto_model
from transformers_tart.loading.report import load_and_report
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.modeling_tart import class_for, load_any
from transformers_tart.repository import DEFAULT_REASONER


@dataclass
class Models:
    """A composed model and what belongs to it, each loaded on first use."""

    name: str  # Hub id or folder of a TART repository or of any backbone, or "mini"
    revision: str | None = None
    reasoner: str | None = None  # of a backbone, as [`TartReasoner.from_pretrained`] takes it; "kernel" if None
    views: str | list[str] | None = None  # as [`TartForSequenceClassification.from_backbone`] takes them
    prompt: str | None = None  # text before each text; that of the model by default
    dtype: str = "auto"  # of the backbone
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int | None = None  # largest number of inputs in a forward pass
    max_length: int | None = None  # longest text in tokens; by default the model's own
    max_prompt: int | None = None  # longest prompt of the methods of prompting, in tokens; the context by default
    _loaded: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def title(self) -> str:
        """The name without the folders above it."""
        return Path(self.name).name if Path(self.name).exists() else self.name

    @property
    def reasoner_name(self) -> str:
        """The name of the reasoner; that of the repository where the reasoner is part of it."""
        return self.reasoner or (self.title if isinstance(self._config, TartBaseConfig) else DEFAULT_REASONER)

    def model(self, modality: str, protocol: str | None = None) -> TartPreTrainedModel:
        """Return the composed model for inputs of a modality, without a support set.

        With a protocol in place of the model's own, backbone and reasoner are the same objects.
        """
        if protocol is None:
            return self._once("model", modality, self._compose)
        return self._once(protocol, modality, partial(self._with_protocol, protocol))

    def composed_views(self, modality: str) -> list[str] | None:
        """Return the names of the views of the composed model, `None` where none was loaded yet."""
        model = self._loaded.get(("model", modality))
        return None if model is None else [view.name for view in model.config.views]

    def processor(self, modality: str) -> Any:
        """Return the tokenizer, image processor or feature extractor of the model."""
        return self._once("processor", modality, lambda modality: load_processor(self.model(modality)))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of a model of texts."""
        return self.processor("text")

    @cached_property
    def language_model(self) -> PreTrainedModel:
        """The backbone with its vocabulary head; a ValueError when it has none."""
        reference = self.backbone_reference
        if not can_be_prompted(find_model(reference.path, **reference.place).config):
            raise ValueError(
                f"{self.title} is no causal language model with a vocabulary head: it cannot be prompted."
            )
        load, backbone = partial(load_auto_model, AutoModelForCausalLM), self.model("text").backbone
        model = load_and_report(load, reference.path, dtype=backbone.dtype, **reference.place)
        if type(model.base_model) is type(backbone):  # one copy of the weights is enough
            setattr(model, model.base_model_prefix, backbone)
            model.tie_weights()
        return model.to(self.device).eval()

    @property
    def backbone_reference(self) -> BackboneReference:
        """The reference to the backbone; a ValueError when a TART repository of the Hub refers to a local folder."""
        if not isinstance(self._config, TartBaseConfig):
            return self._reference
        reference = BackboneReference.from_config(self._config)
        reference.check_origin(self.name)
        return reference

    def _once(self, name: str, modality: str, load: Callable[[str], Any]) -> Any:
        if (name, modality) not in self._loaded:
            self._loaded[name, modality] = load(modality)
        return self._loaded[name, modality]

    @property
    def _reference(self) -> BackboneReference:
        return BackboneReference.of(self.name, self.revision)

    @cached_property
    def _config(self) -> PreTrainedConfig:
        return find_model(self._reference.path, **self._reference.place).config

    @property
    def loading_dtype(self) -> str:
        """The dtype with which the backbone is loaded; `"auto"` where the model itself determines it."""
        return str(with_dtype({"dtype": self.dtype}, self._config, self.device)["dtype"]).removeprefix("torch.")

    def _compose(self, modality: str) -> TartPreTrainedModel:
        if isinstance(self._config, TartBaseConfig):
            model = self._load_task(modality)
        else:
            options: dict[str, Any] = {"max_length": self.max_length, "dtype": self.loading_dtype, **self._reading}
            model = class_for(modality).from_backbone(self.name, self.reasoner, revision=self.revision, **options)
        return model.to(self.device).eval()  # type: ignore[arg-type]

    @property
    def _reading(self) -> dict[str, Any]:
        """The views and the prompt, as far as they are given."""
        given = {"views": self.views, "prompt": self.prompt}
        return {name: value for name, value in given.items() if value is not None}

    def _load_task(self, modality: str) -> TartPreTrainedModel:
        if self.reasoner is not None:
            raise ValueError(f"{self.title} is a TART repository with its own reasoner; leave the other one out.")
        own = self._config.modality
        if own != modality:
            raise ValueError(f"{self.title} classifies {own} inputs, and the task has {MODALITIES[modality].plural}.")
        model = load_any(self._reference.path, dtype=self.loading_dtype, **self._reading, **self._reference.place)
        model.set_support(None)
        if self.max_length is not None:
            if not model.config.modality.is_tokenized:
                raise ValueError(f"max_length is {self.max_length}, which is for texts; cut {own} inputs before.")
            model.config.max_length = self.max_length
        return model

    def _with_protocol(self, protocol: str, modality: str) -> TartPreTrainedModel:
        model = self.model(modality)
        config = copy.deepcopy(model.config)
        config.protocol = protocol
        has_own = self.views is not None or isinstance(self._config, TartBaseConfig)
        if not has_own or any(view.template and not view.is_of_prompt for view in config.views or ()):
            given = {"views": None, "protocol": protocol, **dict.fromkeys(VIEW_ARGUMENTS)}
            projects = model.reasoner.config.projection == "whitened_pca"
            config.views = compose_views(given, model.traits, config.modality, projects)
        config.validate()
        return type(model)(config, backbone=model.backbone, reasoner=model.reasoner).eval()
