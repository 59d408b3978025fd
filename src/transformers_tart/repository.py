"""Repositories of composed models: their parts are loaded and composed, or written beside the reasoner.

Parts are loaded apart and composed afterwards: weights cannot be loaded inside a model's constructor, and a loaded
backbone that passes through another `from_pretrained` loses its non-persistent buffers.
"""

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import cached_file, logging

from transformers_tart.backbones.adapters import unwrap
from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.dtype import is_open
from transformers_tart.backbones.origin import Origin
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.sentence_encoders import (
    SentenceEncoder,
    find_folder,
    find_sentence_encoder,
    take_encoder,
)
from transformers_tart.backbones.sentence_head import head_of, save_backbone
from transformers_tart.backbones.towers import take_tower
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.backbones.vocabulary import head_of_model
from transformers_tart.checks.arguments import as_source
from transformers_tart.checks.label_names import config_names, set_config_names, take_names
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.views import choose_task_views, compose_texts, compose_views, skip_prompt
from transformers_tart.errors import BackboneNotFoundError, CorruptFileError
from transformers_tart.files import check_whole
from transformers_tart.hub.card import classifier_card
from transformers_tart.hub.push import CARD_FILE, OWNED_WEIGHTS
from transformers_tart.inputs.modality import Modality
from transformers_tart.loading.arguments import check_loading
from transformers_tart.loading.checksums import check_sums
from transformers_tart.loading.config import load_config, replace_views
from transformers_tart.loading.download import ACCESS, PLACE, TRUST, pin_revision, select, take
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.support import SUPPORT_FILE, SupportSet


logger = logging.get_logger(__name__)

DEFAULT_REASONER = "kernel"
BACKBONE_FOLDER = "backbone"
BACKBONE_KEYS = "backbone."
OWNED = (*OWNED_WEIGHTS, SUPPORT_FILE)
# Arguments that Auto classes and pipelines pass for themselves.
AUTO_CLASS_KWARGS = ("_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs", "code_revision")


def move_to_output_device(reasoner: TartReasoner, backbone: PreTrainedModel) -> TartReasoner:
    """Move a reasoner to the device where the backbone ends, in float32."""
    device_map = getattr(backbone, "hf_device_map", None)
    if device_map is None:
        return reasoner.to(backbone.device)  # type: ignore[arg-type]
    accelerators = [device for device in device_map.values() if device not in ("cpu", "disk")]
    return reasoner.to(accelerators[-1] if accelerators else "cpu")  # type: ignore[arg-type]


def _find_backbone(
    name_or_model: Any, modality: Modality, embedding: dict[str, Any], revision: str | None, loading: dict[str, Any]
) -> tuple[PreTrainedModel, BackboneReference, SentenceEncoder | None]:
    """Return the backbone that is given or loaded by name, its reference, and its sentence encoder if it is one."""
    name_or_model, encoder = take_encoder(name_or_model)
    name_or_model = unwrap(name_or_model)
    if not isinstance(name_or_model, PreTrainedModel):
        reference = BackboneReference.of(name_or_model, revision, loading.pop("subfolder", None))
        return reference.load_encoder(modality, quiet=embedding["pooling"] is not None, **loading)
    if loading:
        raise ValueError(
            f"The backbone is loaded already, so {sorted(loading)} cannot be applied; pass its name instead."
        )
    name = name_or_model.name_or_path
    folder = find_folder(name) if encoder is not None and name else None
    return take_tower(name_or_model, modality), BackboneReference.of(name_or_model, revision, folder), encoder


def compose(
    cls: Any, name_or_model: Any, reasoner: Any, embedding: dict[str, Any], revision: str | None = None, **loading: Any
) -> Any:
    """Compose a backbone with a reasoner; see [`TartPreTrainedModel.from_backbone`]."""
    check_loading({**embedding, **loading, "revision": revision})
    names = take_names(loading)
    modality = cls.config_class.modality
    backbone, reference, encoder = _find_backbone(name_or_model, modality, embedding, revision, loading)
    checked = BackboneDigest.of(backbone) if isinstance(name_or_model, (str, os.PathLike)) else None
    if not isinstance(reasoner, TartReasoner):
        reasoner = TartReasoner.from_pretrained(DEFAULT_REASONER if reasoner is None else reasoner)
    traits = BackboneTraits(backbone)
    projects = reasoner.config.projection == "whitened_pca"
    views = compose_views(embedding, traits, modality, projects, encoder)
    options = compose_texts(embedding, modality, encoder)
    if encoder is not None and not encoder.pools_prompt and options["prompt"]:
        tokenizer = encoder.tokenizer or reference.load_processor(modality, **select(loading, ACCESS))
        views = skip_prompt(views, tokenizer, **select(options, ("prompt", "lower_case")))
    # a copy, since the wrapper changes a config that it shares with a live model
    fields = {key: value for key, value in backbone.config.to_dict().items() if key != "_name_or_path"}
    parts = {cls.config_class.backbone_key: fields, "reasoner_config": reasoner.config.to_dict()}
    config = cls.config_class(**parts, **reference.config_fields(), views=views, **options)
    if names is not None:
        set_config_names(config, names)
    model = cls(config, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    tokenizer = None if encoder is None else encoder.tokenizer
    model.origin = Origin(
        hub=select(loading, (*ACCESS, TRUST)),
        digest=checked,
        tokenizer=tokenizer,
        head=head_of_model(unwrap(name_or_model)),
    )
    model.adopt(traits)
    return model


def load_composed(cls: Any, name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
    """Load a TART repository; see [`TartPreTrainedModel.from_pretrained`]."""
    name = as_source(name_or_path, "The name of the task")
    check_whole(name)
    check_loading(kwargs)
    if named := [argument for argument in ("prompt_name", "truncate_dim") if kwargs.pop(argument, None) is not None]:
        raise ValueError(
            f"{named} is for the composition of a backbone; a task has its prompt and views in its config."
        )
    with_info, given = kwargs.pop("output_loading_info", False), unwrap(kwargs.pop("backbone", None))
    for argument in AUTO_CLASS_KWARGS:
        kwargs.pop(argument, None)
    names, weights = take_names(kwargs), take(kwargs, ("variant", "use_safetensors"))
    shared, place = take(kwargs, ACCESS), take(kwargs, PLACE)
    place["revision"] = pin_revision(name, **place, **shared)
    hub = {**shared, **place}
    config, asked = load_config(cls.config_class, name, kwargs, names, hub)
    if config.has_support and config.dtype is not None and is_open(kwargs):
        kwargs["dtype"] = config.dtype  # in which the support set was embedded
    if is_reference := not isinstance(given, PreTrainedModel):
        backbone = _load_backbone(config, name, given, place, shared, kwargs)
    else:
        backbone = take_tower(given, config.modality)
    key_mapping = {r"^reasoner\.": ""}
    reasoner, info = TartReasoner.from_pretrained(
        name, config=config.reasoner, key_mapping=key_mapping, output_loading_info=True, **weights, **hub
    )
    model = cls(config, *model_args, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    if asked is not None:
        replace_views(config, name, choose_task_views(asked, config, model.traits))
    is_reference = is_reference and not config.include_backbone
    digest = model.backbone_digest() if is_reference or config.has_support else None
    access = {**shared, **select(kwargs, (TRUST,))}
    model.origin = Origin({"name": name, **place}, access, digest if is_reference else None, head=head_of_model(given))
    if config.has_support:
        support = _load_support(model, name, digest, hub)
        model.restore_support(support.to(model.reasoner.device), names is not None or config.has_chosen_names)
    if config.sha256 is not None:  # last, since other errors are more precise
        sums = {file: each for file, each in config.sha256.items() if file != SUPPORT_FILE or config.has_support}
        check_sums(name, sums, **hub)
        config.sha256 = None  # of the files, not of the model, which may change
    return (model, info) if with_info else model


def _load_backbone(
    config: TartBaseConfig, name: str, given: str | os.PathLike | None, place: dict, shared: dict, loading: dict
) -> PreTrainedModel:
    """Load the backbone that is given by name, saved with a task, or named in its config."""
    loading = {**shared, **loading, "head": head_of(config.base_model_config)}
    if given is not None:
        reference = _refer_to_copy(config, given, shared)
        for key, value in reference.config_fields().items():
            setattr(config, key, value)
        config.include_backbone = False
        return reference.load(config.modality, **loading)
    reference = BackboneReference.from_config(config)
    if config.include_backbone:
        reference = BackboneReference(name, **place).inside(BACKBONE_FOLDER)
        where, advice = f"in {reference.subfolder} of {name}", "Download the repository again, or"
    elif reference.name is None:
        raise ValueError(f"{name} names no backbone; pass one: backbone=...")
    else:
        reference.check_origin(name)
        revision = f" at revision {reference.revision}" if reference.revision else ""
        where = f'"{reference.name}"{revision}, which {name} refers to,'
        advice = "If it has moved or the network is down,"
    try:
        return reference.load(config.modality, **loading)
    except CorruptFileError:
        raise
    except (OSError, ValueError) as err:  # without the folder, transformers sees a model of no known type
        if not config.include_backbone and not isinstance(err, OSError):
            raise
        raise BackboneNotFoundError(
            f"The backbone {where} cannot be loaded: {err}\n{advice} pass a copy: from_pretrained(..., "
            "backbone=<Hub id, folder or model>)."
        ) from err


def _refer_to_copy(config: TartBaseConfig, given: str | os.PathLike, shared: dict) -> BackboneReference:
    """Return the reference to a copy of the backbone of a task."""
    reference = BackboneReference.of(given)
    if reference.name == config.base_model_name_or_path and reference.revision is not None:
        # a support set that was made with an embedded backbone needs the same version of it
        return replace(reference, revision=config.base_model_revision or reference.revision)
    # only a copy of a repository in which the backbone is in a folder may have it in one too
    encoder = find_sentence_encoder(reference.path, quiet=True, **shared) if config.base_model_subfolder else None
    return reference.inside(encoder.path if encoder else None)


def _load_support(model: Any, name: str, digest: Any, hub: dict) -> SupportSet:
    """Load the support set of a repository and compare it with its config and with the digest of the backbone."""
    try:
        path = cached_file(name, SUPPORT_FILE, **hub)
    except OSError as err:
        raise CorruptFileError(
            f"The config of {name} announces a support set, but {SUPPORT_FILE} cannot be loaded: {err}"
        ) from err
    support, config = SupportSet.load(str(path)), model.config
    stored, current = support.options, config.embedding_options
    if stored is not None and (differing := stored.differences(current)):
        raise CorruptFileError(
            f"config.json and {SUPPORT_FILE} of {name} are of two tasks, or one was edited: the support set was "
            f"embedded with {differing[0]}, the config has {differing[1]}. Save the task again from its examples."
        )
    if support.num_labels != config.num_labels:
        raise CorruptFileError(
            f"{SUPPORT_FILE} of {name} has {support.num_labels} classes, id2label of its config.json "
            f"{config.num_labels}. Download the repository again, or save the task again from its examples."
        )
    vocabulary = getattr(model.backbone.get_input_embeddings(), "num_embeddings", None) if support.prompt else None
    if support.prompt is not None and vocabulary is not None and support.prompt.largest_id >= vocabulary:
        raise CorruptFileError(
            f"{SUPPORT_FILE} of {name} has the token id {support.prompt.largest_id}, beyond the {vocabulary} of the "
            "backbone. Download the repository again, or save the task again from its examples."
        )
    if support.digest is None:
        logger.warning_once(
            f"{name} was saved by version 0.1, without a digest of its backbone: whether that is still the same model "
            "is not checked. Save the task again to store one."
        )
        (config.sha256 or {}).pop(SUPPORT_FILE, None)  # which is not the file that was saved with the config
        return replace(support, digest=digest, options=current)  # later changes are compared with these
    support = replace(support, digest=replace(support.digest, name=config.base_model_name_or_path))
    support.check_backbone(digest)
    return support


def config_to_save(model: Any, include_backbone: bool) -> TartBaseConfig:
    """Return a copy of the config of a model as its repository will hold it."""
    config = copy.deepcopy(model.config)
    config.include_backbone = include_backbone
    config.has_support, config.has_chosen_names = model.support is not None, model.chosen_names is not None
    if config.has_support and model.support.digest is not None:
        config.dtype = model.support.digest.dtype or config.dtype
    set_config_names(config, model.names_for(model.support) if model.support else config_names(config))
    if include_backbone:  # whose config may have been changed
        setattr(config, config.backbone_key, copy.deepcopy(model.backbone.config))
    for part in (config.base_model_config, config.reasoner_config):
        if isinstance(part, PreTrainedConfig):
            part.name_or_path = ""  # where it was loaded from may be a path of this machine
    config.reasoner.sha256 = None
    if include_backbone and BackboneReference.from_config(config).is_local:
        config.base_model_name_or_path = None  # a path of this machine, which is no longer needed
    return config


def save_parts(
    model: Any, config: TartBaseConfig, folder: Path, include_texts: bool, max_shard_size: int | str | None
) -> None:
    """Write the support set, the backbone if included, and a card to the folder of a config and a reasoner."""
    support = model.support
    if support is not None:
        support = replace(support, label_names=model.names_for(support))
        if support.digest is None:
            support = replace(support, digest=model.backbone_digest(), options=model.config.embedding_options)
        support.save(folder / SUPPORT_FILE, include_texts=include_texts)
    if config.include_backbone:
        options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        save_backbone(model.backbone, folder / BACKBONE_FOLDER, **options)
    of_support = (None, False) if support is None else (support.storage, include_texts, support.hint_facts())
    classifier_card(config, model.card_facts, *of_support).save(folder / CARD_FILE)


__all__ = [
    "BACKBONE_KEYS",
    "DEFAULT_REASONER",
    "OWNED",
    "compose",
    "config_to_save",
    "load_composed",
    "save_parts",
]
