"""The part of a backbone that reads texts, images or audio: all of it, or one of its towers.

Which inputs a model and its parts read is what transformers says of them (`input_modalities`); no model is known by
name. Of a model with several towers, or of an encoder-decoder that hears, only the tower is loaded.
"""

import functools
import re
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
    PreTrainedModel,
)

from transformers_tart.backbones.adapters import base_of_adapter, explain_adapters
from transformers_tart.hub.push import explain_failures
from transformers_tart.loading.auto import HUB, OWN, check_weights, explain_damage, is_own, load_auto, load_auto_model
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.loading.report import load_without_report, report_rest


AUTO_CLASSES: tuple[Any, ...] = (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoModelForImageTextToText,
    AutoModelForSpeechSeq2Seq,
)

# What the main input of a model is called, where its class does not say what it reads.
INPUTS = {"pixel_values": "image", "input_values": "audio", "input_features": "audio"}


def modalities_of(model: Any) -> tuple[str, ...]:
    """What a model, or a class of models, reads, by its class attributes."""
    given = model.input_modalities
    if given == PreTrainedModel.input_modalities:
        given = INPUTS.get(model.main_input_name, given)
    return (given,) if isinstance(given, str) else tuple(given)


def find_tower(model: PreTrainedModel, modality: str) -> tuple[str, PreTrainedModel]:
    r"""
    Find what of a model reads one modality.

    Args:
        model (`PreTrainedModel`):
            Any model, with a head or without.
        modality (`str`):
            `"text"`, `"image"` or `"audio"`.

    Returns:
        `tuple[str, PreTrainedModel]`: its path inside the model below the head, `""` for all of that, and the tower.

    Raises:
        ValueError: When no part of the model reads the modality alone, or it is a model of this package.
    """
    if model.config.model_type.startswith(OWN):
        raise ValueError(
            f"{model.name_or_path or 'The model'} is a TART model or reasoner, not a backbone: load a model with "
            "from_pretrained, or give a backbone here and the reasoner as reasoner=..."
        )
    base: PreTrainedModel = model if _is_whole(model) else model.base_model  # type: ignore[assignment]
    own = modalities_of(base)
    if modality != "text" and base.config.is_encoder_decoder:
        encoder = base.get_encoder()
        if encoder is not base:
            return next(path for path, part in base.named_modules() if part is encoder), encoder
    if own == (modality,) and _is_whole(base):
        return "", base
    for path, part in base.named_modules():
        is_part = isinstance(part, PreTrainedModel) and part is not base and modalities_of(part) == (modality,)
        # of what reads nothing else, a part is taken only where it is a model below a head
        if is_part and (own != (modality,) or _is_whole(part)):
            return path, part
    if own == (modality,):
        return "", base
    raise ValueError(
        f"{type(base).__name__} reads {' and '.join(own)}, and no part of it reads {modality} alone; take a backbone "
        f"that reads {modality}, or the class for what this one reads."
    )


def _is_whole(model: Any) -> bool:
    """Whether a model is what `AutoModel` makes of its config: no head, and no part."""
    return isinstance(model, classes_of(model.config))


def classes_of(config: PreTrainedConfig) -> tuple[Any, ...]:
    """What `AutoModel` makes of a config; nothing, where it does not know."""
    known = AutoModel._model_mapping.get(type(config), ())
    classes = known if isinstance(known, (tuple, list)) else (known,)
    return tuple(each for each in classes if each is not None)


def backbone_config(name: str, **hub: Any) -> PreTrainedConfig:
    """Load the config of a backbone, or of the model that an adapter was made for; `hub` as in `load_tower`."""
    plain = {key: value for key, value in hub.items() if key != "trust_remote_code"}
    with explain_failures(name):
        base = base_of_adapter(name, **plain)
    if base is not None and base[0] != name:
        name, hub["revision"] = base
        hub.pop("subfolder", None)
    return load_auto(AutoConfig, name, **hub)


def _auto_class(config: PreTrainedConfig) -> Any:
    """The Auto class that loads models of a config; of compositions of an encoder and a decoder another one."""
    return next((auto for auto in AUTO_CLASSES if type(config) in auto._model_mapping), AutoModel)


def loaded_classes_of(config: PreTrainedConfig) -> tuple[Any, ...]:
    """What [`load_tower`] makes of a config, before it takes a part of it."""
    known = classes_of(config)
    auto = _auto_class(config)
    return known if known or auto is AutoModel else (auto._model_mapping[type(config)],)


@one_at_a_time
def build_tower(config: PreTrainedConfig, modality: str) -> PreTrainedModel:
    """A random tower of a config, of the whole model or of the tower alone."""
    return find_tower(AutoModel.from_config(config, trust_remote_code=False), modality)[1]


@one_at_a_time
def load_tower(name: str, modality: str, **loading: Any) -> PreTrainedModel:
    r"""
    Load the tower of a repository or folder, and nothing else of it.

    Args:
        name (`str`):
            Hub id or folder.
        modality (`str`):
            `"text"`, `"image"` or `"audio"`.
        loading:
            As in `AutoModel.from_pretrained`.

    Raises:
        ValueError: When no part of the model reads the modality alone, or the repository is one of this package.
        CorruptFileError: When its files are damaged, or its weights pickled.
    """
    hub = {key: loading[key] for key in HUB if key in loading}
    config = backbone_config(name, **hub)
    if is_own(config):  # a task that names itself would be loaded without end
        raise ValueError(
            f"{name} is a TART model or reasoner, not a backbone: load a model with from_pretrained, or give a "
            "backbone here and the reasoner as reasoner=..."
        )
    if base_of_adapter(name, **{key: value for key, value in hub.items() if key != "trust_remote_code"}) is not None:
        with explain_adapters(name):
            return find_tower(load_auto_model(AutoModel, name, **loading), modality)[1]
    known = classes_of(config)
    needs_all = modality == "text" or not config.is_encoder_decoder
    if len(known) != 1 or (modalities_of(known[0]) == (modality,) and needs_all):
        return _load_whole(config, name, modality, **loading)
    check_weights(name, functools.partial(build_tower, modality=modality), **loading)
    with torch.device("meta"):
        whole = AutoModel.from_config(config, trust_remote_code=False)
    path, tower = find_tower(whole, modality)
    prefix = re.escape(known[0].base_model_prefix), re.escape(path)
    tower_class: Any = type(tower)
    with explain_damage(name):
        loaded, info = load_without_report(
            tower_class.from_pretrained,
            name,
            config=tower.config,
            key_mapping={rf"^(?:{prefix[0]}\.)?{prefix[1]}\.": ""},
            **{**loading, "use_safetensors": True},
        )
    if info["missing_keys"]:
        # the weights lie under other names than the model's own
        return _load_whole(config, name, modality, **loading)
    report_rest(name, whole, info, path, is_whole=False)
    vars(loaded).pop("_weight_conversions", None)  # or the tower would be saved under the names of the whole
    return loaded


def _load_whole(config: PreTrainedConfig, name: str, modality: str, **loading: Any) -> PreTrainedModel:
    load = functools.partial(load_auto_model, _auto_class(config))
    model, info = load_without_report(load, name, **loading)
    path, tower = find_tower(model, modality)
    report_rest(name, model, info, path)
    return tower


__all__ = ["backbone_config", "build_tower", "classes_of", "find_tower", "load_tower", "modalities_of"]
