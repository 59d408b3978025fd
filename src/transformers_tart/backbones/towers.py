"""Towers: the part of a backbone that reads one modality, all of it or one of its models.

The modalities of a model and of its parts are those that transformers states (`input_modalities`); no model is
recognized by name. Of a model with several towers, and of an encoder-decoder for images or audio, only the tower is
loaded.
"""

import functools
import re
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
)

from transformers_tart.backbones.adapters import explain_adapters
from transformers_tart.backbones.sentence_head import attach_head, build_head, head_of
from transformers_tart.inputs.modality import MODALITIES, Modality
from transformers_tart.loading.auto import OWN, ModelSource, check_weights, find_model, is_own, load_auto_model
from transformers_tart.loading.download import HUB, explain_damage, select
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.loading.report import load_without_report, report_rest


AUTO_CLASSES: tuple[Any, ...] = (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForImageTextToText,
    AutoModelForSpeechSeq2Seq,
)
NOT_A_BACKBONE = (
    "{} is a TART model or reasoner, not a backbone: load a model with from_pretrained, or give a backbone here and "
    "the reasoner as reasoner=..."
)


def modalities_of(model: Any) -> tuple[str, ...]:
    """Return the names of the modalities that a model, or a class of models, reads, by its class attributes."""
    given = model.input_modalities
    if given == PreTrainedModel.input_modalities:  # which may mean that the class does not state it
        given = next((each for each in MODALITIES if model.main_input_name in each.main_inputs), given)
    return (given,) if isinstance(given, str) else tuple(given)


def find_tower(model: PreTrainedModel, modality: Modality) -> tuple[str, PreTrainedModel]:
    """Find the part of a model that reads one modality, of a model with a head or without.

    Returns:
        `tuple[str, PreTrainedModel]`: its path inside the model below the head, `""` for all of that, and the tower.

    Raises:
        ValueError: When no part of the model reads the modality alone, or it is a model of this package.
    """
    if model.config.model_type.startswith(OWN):
        raise ValueError(NOT_A_BACKBONE.format(model.name_or_path or "The model"))
    base: PreTrainedModel = model if _is_whole(model) else model.base_model  # type: ignore[assignment]
    own = modalities_of(base)
    if not modality.is_tokenized and base.config.is_encoder_decoder:
        encoder = base.get_encoder()
        if encoder is not base:
            return next(path for path, part in base.named_modules() if part is encoder), encoder
    if own == (modality,) and _is_whole(base):
        return "", base
    for path, part in base.named_modules():
        is_part = isinstance(part, PreTrainedModel) and part is not base and modalities_of(part) == (modality,)
        # of a model that reads nothing else, a part is taken only where it is a model below a head
        if is_part and (own != (modality,) or _is_whole(part)):
            return path, part
    if own == (modality,):
        return "", base
    raise ValueError(
        f"{type(base).__name__} reads {' and '.join(own)}, and no part of it reads {modality} alone; take a backbone "
        f"that reads {modality}, or the class for another modality."
    )


def take_tower(model: PreTrainedModel, modality: Modality) -> PreTrainedModel:
    """Return the tower of a loaded model, with the device map of the whole."""
    _, tower = find_tower(model, modality)
    if hasattr(model, "hf_device_map") and not hasattr(tower, "hf_device_map"):
        tower.hf_device_map = model.hf_device_map
    return tower


def _is_whole(model: Any) -> bool:
    """Return whether a model is what `AutoModel` makes of its config: no head, and no part."""
    return isinstance(model, _classes_of(model.config, AutoModel))


def _classes_of(config: PreTrainedConfig, auto_class: Any) -> tuple[Any, ...]:
    """Return the classes of an Auto class for a config; none where it does not have the config."""
    known = auto_class._model_mapping.get(type(config), None)
    classes = known if isinstance(known, (tuple, list)) else (known,)
    return tuple(each for each in classes if each is not None)


def _auto_class(config: PreTrainedConfig) -> Any:
    """Return the Auto class that loads models of a config; compositions of an encoder and a decoder have others."""
    return next((auto for auto in AUTO_CLASSES if type(config) in auto._model_mapping), AutoModel)


def loaded_classes_of(config: PreTrainedConfig) -> tuple[Any, ...]:
    """Return the classes as which [`load_tower`] loads a config, before it takes a part of the model."""
    return _classes_of(config, _auto_class(config))


@one_at_a_time
def build_tower(config: PreTrainedConfig, modality: Modality) -> PreTrainedModel:
    """Build a random tower from the config of the whole model or of the tower alone."""
    tower = find_tower(AutoModel.from_config(config, trust_remote_code=False), modality)[1]
    steps = head_of(config)
    return attach_head(tower, steps, build_head(steps)) if steps else tower


@one_at_a_time
def load_tower(name: str, modality: Modality, **loading: Any) -> PreTrainedModel:
    """Load the tower of a repository or folder, and nothing else of it; `loading` as in `AutoModel.from_pretrained`.

    Raises:
        ValueError: When no part of the model reads the modality alone, or the repository is one of this package.
        CorruptFileError: When its files are damaged, or its weights pickled.
    """
    source = find_model(name, **select(loading, HUB))
    config = source.config
    if is_own(config):  # a task that names itself would be loaded without end
        raise ValueError(NOT_A_BACKBONE.format(name))
    if source.is_adapter:
        with explain_adapters(name):
            return find_tower(load_auto_model(AutoModel, source, **loading), modality)[1]
    known = _classes_of(config, AutoModel)
    needs_all = modality.is_tokenized or not config.is_encoder_decoder
    if len(known) != 1 or (modalities_of(known[0]) == (modality,) and needs_all):
        return _load_whole(source, modality, loading)
    tower = _load_part(source, known[0], modality, loading)
    return _load_whole(source, modality, loading) if tower is None else tower


def _load_part(
    source: ModelSource, whole_class: Any, modality: Modality, loading: dict[str, Any]
) -> PreTrainedModel | None:
    """Load a tower alone; `None` where its weights have other names in the file than in the model."""
    check_weights(source, functools.partial(build_tower, modality=modality), **loading)
    with torch.device("meta"):
        whole = AutoModel.from_config(source.config, trust_remote_code=False)
    path, tower = find_tower(whole, modality)
    tower_class: Any = type(tower)
    with explain_damage(source.name):
        loaded, info = load_without_report(
            tower_class.from_pretrained,
            source.name,
            config=tower.config,
            key_mapping={rf"^(?:{re.escape(whole_class.base_model_prefix)}\.)?{re.escape(path)}\.": ""},
            **{**loading, "use_safetensors": True},
        )
    if info["missing_keys"]:
        return None
    report_rest(source.name, whole, info, path, is_whole=False)
    vars(loaded).pop("_weight_conversions", None)  # or the tower would be saved under the names of the whole
    return loaded


def _load_whole(source: ModelSource, modality: Modality, loading: dict[str, Any]) -> PreTrainedModel:
    """Load a whole model, and return its tower."""
    model, info = load_without_report(load_auto_model, _auto_class(source.config), source, **loading)
    path, tower = find_tower(model, modality)
    report_rest(source.name, model, info, path)
    return tower
