"""The parts of a pipeline, from what a user gives for them: model, processor and embedding cache."""

import os
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.digest import state_token
from transformers_tart.backbones.reference import load_processor
from transformers_tart.checks.arguments import as_source, shorten
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.loading.auto import load_auto
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.modeling_tart import PipelineModel, compose_any


def load_model(model: Any, backbone: Any, arguments: dict[str, Any]) -> TartPreTrainedModel:
    """Return the composed model.

    Args:
        model (`PreTrainedModel` or [`PipelineModel`]):
            What the pipeline was given.
        backbone (`PreTrainedModel` or `str`, *optional*):
            What replaces the backbone of a task that is loaded here.
        arguments (`dict`):
            Of the pipeline; they get the device, where `pipeline` left that to the device map.

    Raises:
        TypeError: When the model is none.
        ValueError: When a backbone is given with a loaded model.
    """
    if isinstance(model, PipelineModel):
        loaded = model.load(**({} if backbone is None else {"backbone": backbone}))
        device = model.device_of(loaded)
        if device is not None:
            arguments.setdefault("device", device)
        return loaded
    if backbone is not None:
        raise ValueError(
            "backbone is given with a model that is loaded already; give model=<Hub id or folder of a task>, or "
            "load the task with from_pretrained(..., backbone=...)."
        )
    if isinstance(model, TartPreTrainedModel):
        return model
    if not isinstance(unwrap(model), PreTrainedModel):
        as_source(model, "model", " or a loaded PreTrainedModel")
    return compose_any(model)


def choose_processor(model: TartPreTrainedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the processor of a model under the argument that takes it, loaded where it is not given.

    Args:
        model ([`TartPreTrainedModel`]):
            The model.
        given (`dict`):
            The arguments of the pipeline for processors.

    Raises:
        TypeError: On something else than a processor.
        ValueError: On a processor for another modality, or when there is none to load.
    """
    modality = model.config.modality
    loader, argument = modality.auto_processor, modality.processor_argument
    if others := [name for name, value in given.items() if value is not None and name != argument]:
        raise ValueError(f"{others[0]} is given, but the model classifies {modality} inputs; give {argument}=...")
    processor = given[argument]
    if processor is None:
        return {argument: load_processor(model)}
    if isinstance(processor, (str, os.PathLike)):
        trusts = model.origin.hub.get("trust_remote_code")
        processor = load_auto(loader, as_source(processor, argument), trust_remote_code=trusts)
    if not modality.is_processor(processor):
        raise TypeError(
            f"{argument} is {shorten(processor)} of type {type(processor).__name__}; give a loaded one "
            f"({loader.__name__}.from_pretrained), its Hub id or its folder."
        )
    return {argument: processor}


class PipelineCache:
    """The embedding cache of a pipeline, opened when it is needed.

    Args:
        folder (`str` or `os.PathLike`, *optional*):
            Where it is; without one there is no cache.
    """

    def __init__(self, folder: str | os.PathLike | None):
        self._folder = None if folder is None else as_source(folder, "embedding_cache")
        self._opened: tuple[tuple, EmbeddingCache] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}  # an open database

    def open(self, model: TartPreTrainedModel) -> EmbeddingCache | None:
        """Return the cache, made anew when the weights or the settings of the model have changed."""
        if self._folder is None:
            return None
        config = model.config
        state = (config.pooling, config.layers, state_token(model.backbone))
        if self._opened is None or self._opened[0] != state:
            settings = {"pooling": config.pooling, "layers": config.layers}
            self._opened = state, EmbeddingCache(self._folder, model.backbone, **settings)
        return self._opened[1]


__all__ = ["PipelineCache", "choose_processor", "load_model"]
