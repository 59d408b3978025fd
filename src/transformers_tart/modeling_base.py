"""The base of the composed classifiers: a frozen backbone by reference, a reasoner, and optionally a support set."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.backbones.origin import Origin, check_backbone, check_folder
from transformers_tart.backbones.towers import build_tower
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import check_kind
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.files import staged
from transformers_tart.hub.card import CardFacts, classifier_card
from transformers_tart.hub.push import HubMixin, keep_edited_card
from transformers_tart.inputs.views import View
from transformers_tart.loading.checksums import add_checksums
from transformers_tart.loading.download import explain_failures
from transformers_tart.loading.pickling import restore, state_without_capture_hooks
from transformers_tart.modeling_support import SupportingModel
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import (
    BACKBONE_KEYS,
    OWNED,
    compose,
    config_to_save,
    load_composed,
    save_parts,
)
from transformers_tart.support import PreparedSupport, SupportSet


class TartPreTrainedModel(HubMixin, SupportingModel):
    r"""
    Few-shot classifier: a frozen backbone embeds, a reasoner reads the support set and predicts.

    Args:
        config ([`TartBaseConfig`]):
            Its configuration.
        backbone (`PreTrainedModel`, *optional*):
            A loaded backbone; a random one is built from its part of the config when not given.
        reasoner ([`TartReasoner`], *optional*):
            A loaded reasoner; a random one is built from `config.reasoner_config` when not given.
    """

    base_model_prefix = "backbone"
    accepts_loss_kwargs = False  # the loss is a mean, which the trainer scales
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self, config: TartBaseConfig, backbone: PreTrainedModel | None = None, reasoner: TartReasoner | None = None
    ):
        check_kind("config", config, TartBaseConfig)
        check_kind("backbone", backbone, PreTrainedModel, type(None))
        check_kind("reasoner", reasoner, TartReasoner, type(None))
        super().__init__(config)
        if backbone is None and config.base_model_config is None:
            raise ValueError(
                f"The config describes no backbone: give {config.backbone_key}, or compose one with from_backbone."
            )
        self.backbone = build_tower(config.base_model_config, config.modality) if backbone is None else backbone
        self.reasoner = TartReasoner(config.reasoner) if reasoner is None else reasoner
        for given in (backbone, reasoner):
            # post_init must not touch what is loaded, layers added after loading included
            for module in given.modules() if given is not None else ():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        # as transformers sets them on saving, which then changes nothing
        config.architectures, config.dtype = [type(self).__name__], str(self.dtype).removeprefix("torch.")
        self.support: SupportSet | None = None
        self.origin = Origin()
        self.card_facts = CardFacts()
        self._prepared: PreparedSupport | None = None
        self._traits: BackboneTraits | None = None
        # names that came from examples, which those of the next examples replace
        self._names_of_examples: tuple[str, ...] | None = None
        self._growth = threading.RLock()
        self.post_init()
        frozen = {BACKBONE_KEYS + name for name in self.backbone.state_dict()}
        self._keys_to_ignore_on_save = {*(self._keys_to_ignore_on_save or ()), *frozen}
        if hasattr(self.backbone, "hf_device_map"):
            self.hf_device_map = self.backbone.hf_device_map

    @classmethod
    def from_backbone(
        cls,
        name_or_model: str | os.PathLike | PreTrainedModel,
        reasoner: TartReasoner | str | os.PathLike | None = None,
        *,
        views: str | View | Sequence[str | View] | None = None,
        protocol: str = "stream",
        template: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        layers: int | slice | str | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        revision: str | None = None,
        **loading_arguments: Any,
    ) -> Self:
        r"""
        Compose a backbone that reads the inputs of this class with a reasoner, in evaluation mode.

        Args:
            name_or_model (`str`, `Path`, `PreTrainedModel` or `SentenceTransformer`):
                Hub id or folder of the backbone, which may be a peft adapter or a repository of sentence-transformers;
                `"mini"`, the small language model inside this package; or a loaded model or `PeftModel`, of which the
                part below a head is taken, frozen and put in evaluation mode. Of a model with several towers only the
                one that reads the inputs of this class is taken. The modules of a `SentenceTransformer`, or of its
                repository, are applied.
            reasoner ([`TartReasoner`], `str` or `Path`, *optional*):
                A reasoner, or where to load one from; the one inside this package when not given.
            views (`str`, [`View`] or `list`, *optional*, defaults to `"default"`):
                The views of each input: `"default"`, those for backbones of this kind, `"plain"`, one forward pass
                without a template, `"best"`, the most accurate whatever they cost, or names of the registry and
                [`View`] objects.
            pooling (`str`, *optional*), normalize (`bool`, *optional*), layers (`int`, `slice` or `str`, *optional*),
            template (`str`, *optional*):
                The only view, in place of `views`. Of those not given a sentence encoder sets the first three; else
                `pooling` is `"mean"`, and `layers` -1 for a reasoner that projects its input and `"all"` for others.
            protocol (`str`, *optional*, defaults to `"stream"`), max_length (`int`, *optional*):
                As in [`TartConfig`]; a sentence encoder sets the second. Images and audio have neither.
            prompt (`str`, *optional*), prompt_name (`str`, *optional*):
                Text that is put before each text, of examples and queries, or its name in the repository of a sentence
                encoder. By default the one that the repository takes by default; `prompt=""` for none. Of the e5
                family it is `"query: "`, which is not in their files: give it here.
            truncate_dim (`int`, *optional*):
                Number of components of a sentence encoder's embedding to keep (Matryoshka embeddings).
            revision (`str`, *optional*):
                Revision of the backbone's repository; for a loaded model it is noted in the config.
            loading_arguments:
                Passed to `AutoModel.from_pretrained`: `dtype` (that of the weights when not given), `device_map`,
                `max_memory`, `attn_implementation`, `quantization_config`, `token`, `cache_dir`, `trust_remote_code`,
                ... Code of the repository runs with `trust_remote_code=True` only. `id2label` or `label2id` name the
                classes of any support set.

        Raises:
            ValueError: When the backbone reads other inputs, is a sentence encoder of modules that this package does
                not have, or needs code of its repository that may not run.
            CorruptFileError, OSError: When its files are damaged, are not safetensors, or do not exist.
        """
        embedding: dict[str, Any] = {"views": views, "protocol": protocol, "template": template, "pooling": pooling}
        embedding.update(normalize=normalize, layers=layers, max_length=max_length, prompt=prompt)
        embedding.update(prompt_name=prompt_name, truncate_dim=truncate_dim)
        return compose(cls, name_or_model, reasoner, embedding, revision=revision, **loading_arguments)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
        r"""
        Load a TART repository or folder: its reasoner, its support set if it has one, and the backbone it refers to.

        Args:
            pretrained_model_name_or_path (`str` or `Path`):
                Hub id or folder.
            backbone (`PreTrainedModel` or `str`, *optional*):
                A backbone, or where to load one from, to use instead of the one that the repository refers to. With a
                support set it must have the weights that embedded it, in any dtype.
            kwargs:
                As in `PreTrainedModel.from_pretrained`. `revision` and `subfolder` are those of this repository;
                `dtype`, `device_map`, `max_memory`, `trust_remote_code` and the like are for the backbone; `token`,
                `cache_dir` and `local_files_only` are for both. With a support set, `dtype` defaults to the one in
                which that was embedded; without one, `views` and the other options of embeddings replace the saved.

        Raises:
            BackboneNotFoundError, BackboneMismatchError: When the backbone cannot be loaded, or is not the one that
                embedded the support set.
            CorruptFileError: When weights or support set are damaged or incomplete, or `config.json` does not have the
                embedding settings of the support set.
            ValueError: When the repository is not a TART repository.
        """
        with explain_failures(pretrained_model_name_or_path):
            return load_composed(cls, pretrained_model_name_or_path, *model_args, **kwargs)

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
            state_dict (`dict`, *optional*), is_main_process (`bool`, *optional*, defaults to `True`):
                Weights to save instead of the model's own, left unchanged, and whether this process writes.
            include_backbone (`bool`, *optional*, defaults to `False`):
                Whether to save the backbone's weights too, as is needed where they were changed after loading.
            include_texts (`bool`, *optional*, defaults to `False`):
                Whether to save the texts of the support set too. With the protocols `vanilla` and `loo` the token ids
                of the prompt are always saved, and the texts can be read from them. Otherwise a digest of each text
                is, and its embedding, by either of which a text that was guessed can be recognized.
            kwargs:
                As in `PreTrainedModel.save_pretrained`: `push_to_hub`, `repo_id`, `token`, `max_shard_size`, ...

        Raises:
            ValueError: When the backbone has no name to refer to and is not included, or has adapters and is.
            BackboneMismatchError: When the weights of the backbone are not those of the model that it refers to, or
                not those that made the support set.
            OSError: When the disk is full; what was in the folder before stays.
        """
        if is_main_process:
            check_folder(self, save_directory)
            check_backbone(self, include_backbone)
        folder = Path(save_directory)
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(BACKBONE_KEYS)}
        with self._pushing(folder, kwargs, is_main_process):
            if not is_main_process:
                super().save_pretrained(folder, state_dict=weights, is_main_process=False, **kwargs)
                return
            with staged(folder, OWNED) as stage:
                super().save_pretrained(stage, state_dict=weights, **kwargs)
                config = config_to_save(self, include_backbone)
                config.auto_map = self.write_stub(stage)
                config.save_pretrained(stage)  # over the live one, which transformers has written
                save_parts(self, config, stage, include_texts, kwargs.get("max_shard_size"))
                add_checksums(stage)
                keep_edited_card(stage, folder)

    def model_card(self, facts: CardFacts | None = None, *, stores_texts: bool = False) -> ModelCard:
        """Return the card of this model, with `facts` in place of `self.card_facts` if given."""
        support = self.support
        of_support = (None, False) if support is None else (support.storage, stores_texts, support.hint_facts())
        return classifier_card(self.config, facts or self.card_facts, *of_support)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the reasoner; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # the traits hold the backbone with its hooks, and what is prepared is of its objects; a copy makes them again
        return {**state_without_capture_hooks(self), "_traits": None, "_prepared": None, "_growth": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._growth = threading.RLock()
        restore(self)


__all__ = ["TartPreTrainedModel"]
