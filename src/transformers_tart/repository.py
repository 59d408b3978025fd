"""Loads the parts of a TART repository and puts them together.

The parts are loaded apart and composed afterwards: weights cannot be loaded inside a model's constructor, and a
loaded backbone that passes through another `from_pretrained` loses its non-persistent buffers.
"""

import copy
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import cached_file, logging

from transformers_tart.backbones.adapters import has_adapters, unwrap
from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.sentence_encoders import find_sentence_encoder
from transformers_tart.backbones.towers import take_tower
from transformers_tart.checks.arguments import as_source
from transformers_tart.checks.label_names import config_names, set_config_names, take_names
from transformers_tart.configuration_tart import EMBEDDING_FIELDS, TartBaseConfig
from transformers_tart.errors import BackboneMismatchError, BackboneNotFoundError, CorruptFileError
from transformers_tart.files import check_whole
from transformers_tart.hub.card import classifier_card
from transformers_tart.hub.push import CARD_FILE, OWNED_WEIGHTS
from transformers_tart.loading.arguments import check_loading
from transformers_tart.loading.auto import check_files
from transformers_tart.loading.checksums import check_sums
from transformers_tart.loading.download import (
    ACCESS,
    PLACE,
    TRUST,
    explain_damage,
    pin_revision,
    select,
    take,
)
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.support import SUPPORT_FILE, SupportSet, describe_differences


logger = logging.get_logger(__name__)

DEFAULT_REASONER = "kernel"
BACKBONE_FOLDER = "backbone"
BACKBONE_KEYS = "backbone."
OWNED = (*OWNED_WEIGHTS, SUPPORT_FILE)
WAYS_OUT = (
    "pass include_backbone=True, or save the backbone first (backbone.save_pretrained) and compose from that folder"
)
ADAPTER_WAYS_OUT = (
    "save the adapter to a folder (save_pretrained of peft) and compose from there, or merge it into the backbone "
    "(merge_and_unload of peft), compose anew and pass include_backbone=True"
)

# Arguments that Auto classes and pipelines pass for themselves.
AUTO_CLASS_KWARGS = ("_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs", "code_revision")
CONFIG_FIELDS = ("base_model_name_or_path", "base_model_revision", "base_model_subfolder", *EMBEDDING_FIELDS)


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from.

    Args:
        task (`dict`, *optional*):
            `name`, `revision` and `subfolder` of the TART repository; empty for a composed model.
        hub (`dict`, *optional*):
            Token, cache folder and the like, with which the processor is loaded too.
        digest ([`BackboneDigest`], *optional*):
            Digest of the backbone that the config refers to; `None` where that has not been loaded.
    """

    task: dict[str, Any] = field(default_factory=dict)
    hub: dict[str, Any] = field(default_factory=dict)
    digest: BackboneDigest | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "hub": {name: value for name, value in self.hub.items() if name != "token"}}


def load_default_reasoner() -> TartReasoner:
    """The reasoner inside this package."""
    return TartReasoner.from_pretrained(DEFAULT_REASONER)


def move_to_output_device(reasoner: TartReasoner, backbone: PreTrainedModel) -> TartReasoner:
    """Move a reasoner to the device where the backbone ends, in float32."""
    device_map = getattr(backbone, "hf_device_map", None)
    if device_map is None:
        return reasoner.to(backbone.device)  # type: ignore[arg-type]
    accelerators = [device for device in device_map.values() if device not in ("cpu", "disk")]
    return reasoner.to(accelerators[-1] if accelerators else "cpu")  # type: ignore[arg-type]


def compose(
    cls: Any,
    name_or_model: str | os.PathLike | PreTrainedModel,
    reasoner: TartReasoner | str | os.PathLike | None,
    embedding: dict[str, Any],
    revision: str | None = None,
    **loading: Any,
) -> Any:
    """Compose a backbone with a reasoner; see [`TartPreTrainedModel.from_backbone`]."""
    check_loading({**embedding, **loading, "revision": revision})
    names = take_names(loading)
    modality = cls.config_class.modality
    name_or_model, checked = unwrap(name_or_model), None
    if isinstance(name_or_model, PreTrainedModel):
        if loading:
            raise ValueError(
                f"The backbone is loaded already, so {sorted(loading)} cannot be applied; pass its name instead."
            )
        backbone, reference = take_tower(name_or_model, modality), BackboneReference.of(name_or_model, revision)
    else:
        reference = BackboneReference.of(name_or_model, revision, loading.pop("subfolder", None))
        backbone, reference, embedding = reference.load_and_complete(modality, embedding, **loading)
        checked = BackboneDigest.of(backbone)
    if not isinstance(reasoner, TartReasoner):
        reasoner = load_default_reasoner() if reasoner is None else TartReasoner.from_pretrained(reasoner)
    usual = {
        "pooling": "mean",
        "normalize": False,
        "layers": -1 if reasoner.config.projection == "whitened_pca" else "all",
    }
    embedding = {**embedding, **{field: value for field, value in usual.items() if embedding[field] is None}}
    # a copy: a config that is shared with a live model is changed by the wrapper
    fields = {key: value for key, value in backbone.config.to_dict().items() if key != "_name_or_path"}
    config = cls.config_class(
        **{cls.config_class.backbone_key: fields},
        **reference.config_fields(),
        reasoner_config=reasoner.config.to_dict(),
        **embedding,
    )
    if names is not None:
        set_config_names(config, names)
    model = cls(config, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    model.origin = Origin(hub=select(loading, (*ACCESS, TRUST)), digest=checked)
    return model


def load_reference(config: TartBaseConfig, dtype: torch.dtype, **shared: Any) -> PreTrainedModel:
    """Load the backbone that a config refers to, on the CPU.

    Raises:
        OSError, ValueError: When it cannot be loaded.
    """
    return BackboneReference.from_config(config).load(config.modality, **shared, dtype=dtype)


def load_composed(cls: Any, name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
    """Load a TART repository; see [`TartPreTrainedModel.from_pretrained`]."""
    name = as_source(name_or_path, "The name of the task")
    check_whole(name)
    check_loading(kwargs)
    with_info = kwargs.pop("output_loading_info", False)
    backbone, config = kwargs.pop("backbone", None), kwargs.pop("config", None)
    for argument in AUTO_CLASS_KWARGS:
        kwargs.pop(argument, None)
    names = take_names(kwargs)
    shared, repository = take(kwargs, ACCESS), take(kwargs, PLACE)
    repository["revision"] = pin_revision(name, **repository, **shared)
    weights, overrides = take(kwargs, ("variant", "use_safetensors")), take(kwargs, CONFIG_FIELDS)
    if not isinstance(config, cls.config_class):
        source = (
            config if isinstance(config, PreTrainedConfig) else as_source(name if config is None else config, "config")
        )
        config = _load_config(cls.config_class, source, **shared, **repository)
    overrides = config.drop_text_fields(overrides)
    contradicted = [key for key in EMBEDDING_FIELDS if key in overrides and overrides[key] != getattr(config, key)]
    if config.has_support and contradicted:
        raise ValueError(
            f"{name} holds a support set that was embedded with other values of {contradicted}. Load it without them, "
            "or compose its backbone anew and give the examples again."
        )
    for key, value in overrides.items():
        setattr(config, key, value)
    if names is not None:
        set_config_names(config, names)
    config.validate()
    given = unwrap(backbone)
    if given is not None and not isinstance(given, PreTrainedModel):
        for field, value in _refer_to_given(config, given, shared).config_fields().items():
            setattr(config, field, value)
        config.include_backbone = False
    backbone = (
        take_tower(given, config.modality)
        if isinstance(given, PreTrainedModel)
        else _load_backbone(config, name, given is not None, shared, repository, kwargs)
    )
    reasoner, info = TartReasoner.from_pretrained(
        name,
        config=config.reasoner,
        key_mapping={r"^reasoner\.": ""},
        output_loading_info=True,
        **weights,
        **shared,
        **repository,
    )
    model = cls(config, *model_args, backbone=backbone, reasoner=move_to_output_device(reasoner, backbone)).eval()
    is_reference = not isinstance(given, PreTrainedModel) and not config.include_backbone
    digest = model.backbone_digest() if is_reference or config.has_support else None
    hub = {**shared, **select(kwargs, (TRUST,))}
    model.origin = Origin({"name": name, **repository}, hub, digest if is_reference else None)
    if config.has_support:
        support = _load_support(model, name, digest, {**shared, **repository})
        model.restore_support(support.to(model.reasoner.device), has_chosen_names=names is not None)
    if config.sha256 is not None:
        _check_sums(config, name, model.support, {**shared, **repository})
    return (model, info) if with_info else model


def _check_sums(config: TartBaseConfig, name: str, support: SupportSet | None, hub: dict) -> None:
    """Compare the checksums of the config with the files, after what says more precisely what is wrong with them."""
    sums = dict(config.sha256 or {})
    if support is None:
        sums.pop(SUPPORT_FILE, None)
    check_sums(name, sums, **hub)
    config.sha256 = None  # of the files, not of the model, which may change


def _load_config(config_class: type[TartBaseConfig], name: Any, **hub: Any) -> TartBaseConfig:
    """The config of a TART repository, checked to be one: transformers would take another's with a warning."""
    if isinstance(name, PreTrainedConfig):
        raise ValueError(f'The config is of model type "{name.model_type}", not "{config_class.model_type}".')
    with explain_damage(name):
        check_files(name, **hub)
        fields, _ = PreTrainedConfig.get_config_dict(name, **hub)
    model_type = fields.get("model_type")
    if model_type == "tart_reasoner":
        raise ValueError(
            f"{name} holds a reasoner alone; load it with TartReasoner.from_pretrained, or compose it with a "
            "backbone: TartForSequenceClassification.from_backbone(backbone, reasoner=...)."
        )
    if model_type != config_class.model_type and str(model_type).startswith("tart"):
        raise ValueError(
            f'{name} holds a TART model of type "{model_type}", not "{config_class.model_type}": load it with '
            "AutoModel.from_pretrained, which finds its class."
        )
    if model_type != config_class.model_type:
        raise ValueError(
            f'{name} holds a model of type "{model_type}", not a TART repository; to use it as a backbone call '
            "TartForSequenceClassification.from_backbone."
        )
    with explain_damage(name):
        return config_class.from_pretrained(name, **hub)


def _refer_to_given(config: TartBaseConfig, given: str | os.PathLike, shared: dict) -> BackboneReference:
    """Return the reference to a copy of the backbone of a task."""
    reference = BackboneReference.of(given)
    if reference.name == config.base_model_name_or_path and reference.revision is not None:
        # a support set that was made with an embedded backbone needs the same version of it
        return replace(reference, revision=config.base_model_revision or reference.revision)
    # only a copy of a repository in which the backbone is in a folder may have it in one too
    encoder = find_sentence_encoder(reference.path, quiet=True, **shared) if config.base_model_subfolder else None
    return reference.inside(encoder.path if encoder else None)


def _load_backbone(
    config: TartBaseConfig, name: str, is_given: bool, shared: dict, repository: dict, loading: dict
) -> PreTrainedModel:
    """Load the backbone that is saved with a task, or that its config refers to."""
    loading = {**shared, **loading}
    if config.include_backbone:
        saved = BackboneReference(name, **repository).inside(BACKBONE_FOLDER)
        try:
            return saved.load(config.modality, **loading)
        except CorruptFileError:
            raise
        except (OSError, ValueError) as err:  # without the folder, transformers sees a model of no known type
            raise BackboneNotFoundError(
                f"The config of {name} announces a backbone in {saved.subfolder}, but it cannot be loaded: {err}\n"
                "Download the repository again, or pass a copy: from_pretrained(..., backbone=<Hub id, folder or "
                "model>)."
            ) from err
    reference = BackboneReference.from_config(config)
    if is_given:
        return reference.load(config.modality, **loading)
    if reference.name is None:
        raise ValueError(f"{name} names no backbone; pass one: backbone=...")
    reference.check_origin(name)
    try:
        return reference.load(config.modality, **loading)
    except CorruptFileError:
        raise
    except OSError as err:
        revision = f" at revision {reference.revision}" if reference.revision else ""
        raise BackboneNotFoundError(
            f'The backbone "{reference.name}"{revision}, which {name} refers to, cannot be loaded: {err}\nIf it has '
            "moved or the network is down, pass a copy: from_pretrained(..., backbone=<Hub id, folder or model>)."
        ) from err


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
    if stored is not None and (differing := describe_differences(stored, current)):
        raise CorruptFileError(
            f"config.json and {SUPPORT_FILE} of {name} are of two tasks, or one was edited: the support set was "
            f"embedded with {differing[0]}, the config says {differing[1]}. Save the task again from its examples."
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
        # by which later changes are seen
        return replace(support, digest=digest, options=current)
    support = replace(support, digest=replace(support.digest, name=config.base_model_name_or_path))
    support.check_backbone(digest)
    return support


def check_folder(model: Any, folder: str | os.PathLike) -> None:
    """Raise a ValueError for saving into the folder of the backbone, whose config and weights would be lost."""
    name = model.config.base_model_name_or_path
    if name is not None and os.path.isdir(name) and os.path.isdir(folder) and os.path.samefile(name, folder):
        raise ValueError(
            f"{os.fspath(folder)} is the folder of the backbone, whose files would be lost. Save to another."
        )


def check_backbone(model: Any, include_backbone: bool) -> None:
    """Check that a saved model will load with the backbone as it is now.

    Raises:
        ValueError: When it would load with another one, or none.
        BackboneMismatchError: When its weights are not those that made the support set, or of the reference.
    """
    if model.support is not None:
        model.check_support(model.support)
    if include_backbone:
        if has_adapters(model.backbone):
            raise ValueError(
                f"The backbone has adapters of peft, which are not saved inside a task; {ADAPTER_WAYS_OUT}."
            )
        return
    ways_out = ADAPTER_WAYS_OUT if has_adapters(model.backbone) else WAYS_OUT
    name = model.config.base_model_name_or_path
    if name is None:
        raise ValueError(f"This backbone has no Hub id or folder to refer to; {ways_out}.")
    digest = model.backbone_digest()
    if model.origin.digest is None:
        if digest.quantization is not None:
            logger.warning_once(f"The backbone is quantized, so that it is not compared with {name}.")
            return
        model.origin = replace(model.origin, digest=_digest_of_reference(model))
    if differences := model.origin.digest.differences(digest):
        raise BackboneMismatchError(
            f"The backbone is no longer, or never was, {name!r}, to which the saved model would refer: "
            f"{'; '.join(differences)}. Its weights were changed, an adapter was loaded, or it is of another "
            f"revision (from_backbone(..., revision=...)); {ways_out}."
        )


def _digest_of_reference(model: Any) -> BackboneDigest:
    """Return the digest of the backbone that the config of a model with a given backbone refers to."""
    try:
        return BackboneDigest.of(load_reference(model.config, model.backbone.dtype, **model.origin.hub))
    except (OSError, ValueError) as err:
        raise ValueError(
            f"The backbone was given as a loaded model, and {model.config.base_model_name_or_path!r}, to which the "
            f"saved model would refer, cannot be loaded to compare their weights: {err}\nGive its right name, or "
            f"{WAYS_OUT}."
        ) from err


def config_to_save(model: Any, include_backbone: bool) -> TartBaseConfig:
    """Return a copy of the config of a model as its repository will hold it."""
    config = copy.deepcopy(model.config)
    config.include_backbone = include_backbone
    config.has_support = model.support is not None
    set_config_names(config, model.names_for(model.support) if model.support else config_names(config))
    if include_backbone:  # whose config may have been changed
        setattr(config, config.backbone_key, copy.deepcopy(model.backbone.config))
    for part in (config.base_model_config, config.reasoner_config):
        if isinstance(part, PreTrainedConfig):
            part.name_or_path = ""  # where it was loaded from may be a path of this machine
    config.reasoner.sha256 = None
    if include_backbone and BackboneReference.from_config(config).is_local:
        config.base_model_name_or_path = None  # a path of this machine, which nobody needs any more
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
        model.backbone.save_pretrained(folder / BACKBONE_FOLDER, **options)
    size = None if support is None else len(support)
    classifier_card(config, model.card_facts, size, include_texts).save(folder / CARD_FILE)


__all__ = [
    "BACKBONE_FOLDER",
    "BACKBONE_KEYS",
    "DEFAULT_REASONER",
    "OWNED",
    "Origin",
    "check_backbone",
    "check_folder",
    "compose",
    "config_to_save",
    "load_composed",
    "load_default_reasoner",
    "move_to_output_device",
    "save_parts",
]
