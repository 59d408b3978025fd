"""How a composed classifier is saved, and what its repository says of it."""

import copy
import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from transformers_tart.backbones import is_local
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.hub import CARD_FILE, HubMixin
from transformers_tart.loading import BACKBONE_FOLDER
from transformers_tart.model_card import CardFacts, classifier_card
from transformers_tart.support import SUPPORT_FILE, SupportSet


BACKBONE_KEYS = "backbone."


class SavingMixin(HubMixin):
    """Saves the reasoner, the config, the support set and a card; the backbone only when asked."""

    config: TartConfig
    backbone: PreTrainedModel
    support: SupportSet | None
    card_facts: CardFacts

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
                Whether to save the backbone's weights too.
            include_texts (`bool`, *optional*, defaults to `False`):
                Whether to save the texts of the support set too. With the protocols `vanilla` and `loo` the token ids
                of the prompt are always saved, and the texts can be read from them.
            kwargs:
                As in `PreTrainedModel.save_pretrained`: `push_to_hub`, `repo_id`, `token`, `max_shard_size`, ...

        Raises:
            ValueError: When the backbone has no name to refer to and is not included.
        """
        if not include_backbone and self.config.base_model_name_or_path is None:
            raise ValueError(
                "This backbone has no Hub id or folder to refer to; pass include_backbone=True, or save the backbone "
                "first and compose from that folder."
            )
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(BACKBONE_KEYS)}
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        live = self.config
        self.config = self._config_to_save(include_backbone)
        try:
            with self._pushing(folder, kwargs, is_main_process):
                if is_main_process:
                    self.config.auto_map = self.write_stub(folder)
                    self._save_parts(folder, include_backbone, include_texts, kwargs.get("max_shard_size"))
                super().save_pretrained(folder, state_dict=weights, is_main_process=is_main_process, **kwargs)
        finally:
            self.config = live

    def _config_to_save(self, include_backbone: bool) -> TartConfig:
        config = copy.deepcopy(self.config)
        config.include_backbone = include_backbone
        config.has_support = self.support is not None
        for part in (config.of_backbone, config.reasoner_config):
            if isinstance(part, PreTrainedConfig):
                part.name_or_path = ""  # where it was loaded from may be a path of this machine
        if include_backbone and config.base_model_name_or_path and is_local(config.base_model_name_or_path):
            config.base_model_name_or_path = None  # a path of this machine, which nobody needs any more
        return config

    def _save_parts(self, folder: Path, include_backbone: bool, include_texts: bool, max_shard_size: Any) -> None:
        """Write what stands beside the reasoner: the support set, the backbone if asked, and a card where none is."""
        if self.support is not None:
            self.support.save(folder / SUPPORT_FILE, include_texts=include_texts)
        else:
            (folder / SUPPORT_FILE).unlink(missing_ok=True)
        if include_backbone:
            options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
            self.backbone.save_pretrained(folder / BACKBONE_FOLDER, **options)
            os.utime(folder / BACKBONE_FOLDER)  # files that are written over leave it, and a push looks at it
        if not (folder / CARD_FILE).exists():
            self.model_card(stores_texts=include_texts).save(folder / CARD_FILE)

    def model_card(self, facts: CardFacts | None = None, *, stores_texts: bool = False) -> ModelCard:
        """The card of this model, from the template.

        Args:
            facts ([`CardFacts`], *optional*):
                Data sets, language, licence and measured results; `self.card_facts` when not given.
            stores_texts (`bool`, *optional*, defaults to `False`):
                Whether the repository holds the texts of the support set.
        """
        size = None if self.support is None else len(self.support)
        return classifier_card(self.config, facts or self.card_facts, size, stores_texts)


__all__ = ["BACKBONE_KEYS", "SavingMixin"]
