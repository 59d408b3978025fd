"""How a composed classifier is saved, and what its repository says of it."""

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.adapters import has_adapters
from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.reference import is_local
from transformers_tart.checks.label_names import config_names, set_config_names
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.errors import BackboneMismatchError
from transformers_tart.files import staged
from transformers_tart.hub.card import CardFacts, classifier_card
from transformers_tart.hub.push import CARD_FILE, OWNED_WEIGHTS, HubMixin, keep_edited_card
from transformers_tart.inference import InferenceMixin
from transformers_tart.loading.checksums import add_checksums
from transformers_tart.repository import BACKBONE_FOLDER, load_reference
from transformers_tart.support import SUPPORT_FILE, SupportSet


logger = logging.get_logger(__name__)

BACKBONE_KEYS = "backbone."
OWNED = (*OWNED_WEIGHTS, SUPPORT_FILE)
WAYS_OUT = (
    "pass include_backbone=True, or save the backbone first (backbone.save_pretrained) and compose from that folder"
)
ADAPTER_WAYS_OUT = (
    "save the adapter to a folder (save_pretrained of peft) and compose from there, or merge it into the backbone "
    "(merge_and_unload of peft), compose anew and pass include_backbone=True"
)


class SavingMixin(InferenceMixin, HubMixin):
    """Saves the reasoner, the config, the support set and a card; the backbone only when asked."""

    config: TartConfig
    backbone: PreTrainedModel
    support: SupportSet | None
    card_facts: CardFacts
    hub_arguments: dict[str, Any]
    reference_digest: BackboneDigest | None  # of the backbone that the config refers to, where it was loaded

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        include_backbone: bool = False,
        include_texts: bool = False,
        **kwargs: Any,
    ) -> None:
        r"""
        Save the reasoner, the config and the support set; the backbone stays a reference.

        Args:
            save_directory (`str` or `Path`):
                The folder, made when it does not exist.
            state_dict (`dict`, *optional*):
                Weights to save instead of the model's own; the dictionary is left as it is.
            is_main_process (`bool`, *optional*, defaults to `True`):
                Whether this process writes.
            include_backbone (`bool`, *optional*, defaults to `False`):
                Whether to save the backbone's weights too, which is needed where they are not those of the model that
                it was loaded from.
            include_texts (`bool`, *optional*, defaults to `False`):
                Whether to save the texts of the support set too. With the protocols `vanilla` and `loo` the token ids
                of the prompt are always saved, and the texts can be read from them.
            kwargs:
                As in `PreTrainedModel.save_pretrained`: `push_to_hub`, `repo_id`, `token`, `max_shard_size`, ...

        Raises:
            ValueError: When the backbone has no name to refer to and is not included, or has adapters and is.
            BackboneMismatchError: When the weights of the backbone are not those of the model that it refers to, or
                not those that made the support set.
            OSError: When the disk is full; what was in the folder before stays.
        """
        if is_main_process:
            self._check_folder(save_directory)
            self._check_backbone(include_backbone)
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(BACKBONE_KEYS)}
        folder, twin = Path(save_directory), self._twin(self._config_to_save(include_backbone))
        with self._pushing(folder, kwargs, is_main_process):
            if not is_main_process:
                super(SavingMixin, twin).save_pretrained(folder, state_dict=weights, is_main_process=False, **kwargs)
                return
            with staged(folder, OWNED) as stage:
                twin.config.auto_map = self.write_stub(stage)
                twin._save_parts(stage, include_backbone, include_texts, kwargs.get("max_shard_size"))
                super(SavingMixin, twin).save_pretrained(stage, state_dict=weights, **kwargs)
                add_checksums(stage)
                keep_edited_card(stage, folder)

    def _twin(self, config: TartConfig) -> Self:
        """The same model with another config; the model itself, which another thread may be using, keeps its own."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), config=config)
        return twin

    def _check_folder(self, folder: str | os.PathLike) -> None:
        """Raise a ValueError for the folder of the backbone, whose config and weights would be lost."""
        name = self.config.base_model_name_or_path
        if name is not None and os.path.isdir(name) and os.path.isdir(folder) and os.path.samefile(name, folder):
            raise ValueError(
                f"{os.fspath(folder)} is the folder of the backbone, whose files would be lost. Save to another."
            )

    def _check_backbone(self, include_backbone: bool) -> None:
        """Check that what is saved will load with the backbone as it is now.

        Raises:
            ValueError: When it would load with another one, or none.
            BackboneMismatchError: When its weights are not those that made the support set, or of the reference.
        """
        if self.support is not None:
            self.check_support(self.support)
        if include_backbone:
            if has_adapters(self.backbone):
                raise ValueError(
                    f"The backbone has adapters of peft, which are not saved inside a task; {ADAPTER_WAYS_OUT}."
                )
            return
        ways_out = ADAPTER_WAYS_OUT if has_adapters(self.backbone) else WAYS_OUT
        name = self.config.base_model_name_or_path
        if name is None:
            raise ValueError(f"This backbone has no Hub id or folder to refer to; {ways_out}.")
        digest = self.backbone_digest()
        if digest.quantization is not None and self.reference_digest is None:
            logger.warning_once(f"The backbone is quantized, so that it is not compared with {name}.")
            return
        if self.reference_digest is None:
            self.reference_digest = self._digest_of_reference(name)
        if differences := self.reference_digest.differences(digest):
            raise BackboneMismatchError(
                f"The backbone is no longer, or never was, {name!r}, to which the saved model would refer: "
                f"{'; '.join(differences)}. Its weights were changed, an adapter was loaded, or it is of another "
                f"revision (from_backbone(..., revision=...)); {ways_out}."
            )

    def _digest_of_reference(self, name: str) -> BackboneDigest:
        """Digest of the backbone that the config refers to, of which only a loaded model was given."""
        try:
            return BackboneDigest.of(load_reference(self.config, self.backbone.dtype, **self.hub_arguments))
        except (OSError, ValueError) as err:
            raise ValueError(
                f"The backbone was given as a loaded model, and {name!r}, to which the saved model would refer, "
                f"cannot be loaded to compare their weights: {err}\nGive its right name, or {WAYS_OUT}."
            ) from err

    def _config_to_save(self, include_backbone: bool) -> TartConfig:
        config = copy.deepcopy(self.config)
        config.include_backbone = include_backbone
        config.has_support = self.support is not None
        set_config_names(config, self.names_for(self.support) if self.support else config_names(config))
        if include_backbone:  # whose config may have been changed
            setattr(config, config.backbone_key, copy.deepcopy(self.backbone.config))
        for part in (config.of_backbone, config.reasoner_config):
            if isinstance(part, PreTrainedConfig):
                part.name_or_path = ""  # where it was loaded from may be a path of this machine
        config.reasoner.sha256 = None
        if include_backbone and config.base_model_name_or_path and is_local(config.base_model_name_or_path):
            config.base_model_name_or_path = None  # a path of this machine, which nobody needs any more
        return config

    def _save_parts(self, folder: Path, include_backbone: bool, include_texts: bool, max_shard_size: Any) -> None:
        """Write what stands beside the reasoner: the support set, the backbone if asked, and a card."""
        support = self.named_support()
        if support is not None:
            if support.digest is None:
                support = replace(support, digest=self.backbone_digest(), options=self.config.embedding_options)
            support.save(folder / SUPPORT_FILE, include_texts=include_texts)
        if include_backbone:
            options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
            self.backbone.save_pretrained(folder / BACKBONE_FOLDER, **options)
        self.model_card(stores_texts=include_texts).save(folder / CARD_FILE)

    def model_card(self, facts: CardFacts | None = None, *, stores_texts: bool = False) -> ModelCard:
        """The card of this model, from the template.

        Args:
            facts ([`CardFacts`], *optional*):
                Data sets, language, license and measured results; `self.card_facts` when not given.
            stores_texts (`bool`, *optional*, defaults to `False`):
                Whether the repository holds the texts of the support set.
        """
        size = None if self.support is None else len(self.support)
        return classifier_card(self.config, facts or self.card_facts, size, stores_texts)


__all__ = ["BACKBONE_KEYS", "SavingMixin"]
