"""Origins of composed models, and the check that a saved one will load with the backbone that it has now."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers.utils import logging

from transformers_tart.backbones.adapters import has_adapters
from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.backbones.sentence_head import head_of
from transformers_tart.backbones.vocabulary import HeadRows, read_head
from transformers_tart.checks.arguments import as_source
from transformers_tart.errors import BackboneMismatchError
from transformers_tart.loading.download import ACCESS, TRUST, select


logger = logging.get_logger(__name__)

WAYS_OUT = (
    "pass include_backbone=True, or save the backbone first (backbone.save_pretrained) and compose from that folder"
)
ADAPTER_WAYS_OUT = (
    "save the adapter to a folder (save_pretrained of peft) and compose from there, or merge it into the backbone "
    "(merge_and_unload of peft), compose anew and pass include_backbone=True"
)


@dataclass(frozen=True)
class Origin:
    """Place where a model was loaded from.

    Attributes:
        task: `name`, `revision` and `subfolder` of the TART repository; empty for a composed model.
        hub: token, cache folder and the like, with which the processor is loaded too.
        digest: digest of the backbone that the config refers to; `None` where that has not been loaded.
        tokenizer: tokenizer of the `SentenceTransformer` that is the backbone.
        head: vocabulary head of a loaded model whose other part is the backbone, where the two share no weights.
    """

    task: dict[str, Any] = field(default_factory=dict)
    hub: dict[str, Any] = field(default_factory=dict)
    digest: BackboneDigest | None = None
    tokenizer: Any = None
    head: Any = None

    def __getstate__(self) -> dict[str, Any]:
        hub = {name: value for name, value in self.hub.items() if name != "token"}
        return {**vars(self), "hub": hub, "head": None}


def check_folder(model: Any, folder: str | os.PathLike) -> None:
    """Raise a ValueError for saving into the folder of the backbone, whose files would be lost, or to `""`."""
    as_source(folder, "save_directory")  # of "", `Path` makes the working directory
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
    digest = model.backbone_digest()
    if model.support is not None:
        model.support.check_options(model.config.embedding_options)
        model.support.check_backbone(digest)
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
    """Load the backbone that the config of a model with a given backbone refers to, and return its digest."""
    reference = BackboneReference.from_config(model.config)
    try:
        dtype = model.backbone.dtype
        head = head_of(model.backbone.config)
        return BackboneDigest.of(reference.load(model.config.modality, head, **model.origin.hub, dtype=dtype))
    except (OSError, ValueError) as err:
        raise ValueError(
            f"The backbone was given as a loaded model, and {reference.name!r}, to which the saved model would refer, "
            f"cannot be loaded to compare their weights: {err}\nGive its right name, or {WAYS_OUT}."
        ) from err


def read_vocabulary(model: Any, ids: Sequence[int]) -> HeadRows | None:
    """Return rows of the vocabulary head of the backbone of a model; `None` where there is none or none is found."""
    reference = BackboneReference.from_config(model.config)
    hub = {**select(model.origin.hub, (*ACCESS, TRUST)), **reference.place}
    try:
        name = None if reference.name is None else reference.path
        return read_head(model.backbone, ids, model.origin.head, name, **hub)
    except (OSError, ValueError) as err:
        logger.info(f"The vocabulary head of the backbone cannot be read, so there is no label_likelihood: {err}")
        return None


__all__ = ["Origin", "check_backbone", "check_folder", "read_vocabulary"]
