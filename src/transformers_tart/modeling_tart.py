"""The composed classifiers: a frozen backbone by reference, a reasoner, and optionally a stored support set.

What they share, and the one of texts; those of images and audio are in `modeling_media`.
"""

import os
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.model_inputs import check_labels, check_tokens
from transformers_tart.backbones.towers import build_tower
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import check_kind, refuse_unknown
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.hub.card import CardFacts
from transformers_tart.hub.push import explain_failures
from transformers_tart.inference import PreparedSupport
from transformers_tart.loading.pickling import restore, state_without_capture_hooks
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.repository import compose, load_composed
from transformers_tart.saving import BACKBONE_KEYS, SavingMixin
from transformers_tart.support import SupportSet


class TartPreTrainedModel(SavingMixin, PreTrainedModel):
    r"""
    Few-shot classifier: a frozen backbone embeds, a reasoner reads the support set and predicts.

    Args:
        config ([`TartConfig`]):
            Its configuration.
        backbone (`PreTrainedModel`, *optional*):
            A loaded backbone; a random one is built from its part of the config when not given.
        reasoner ([`TartReasoner`], *optional*):
            A loaded reasoner; a random one is built from `config.reasoner_config` when not given.
    """

    config: TartConfig
    backbone: PreTrainedModel
    reasoner: TartReasoner
    base_model_prefix = "backbone"
    accepts_loss_kwargs = False  # the loss is a mean, which the trainer scales
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self, config: TartConfig, backbone: PreTrainedModel | None = None, reasoner: TartReasoner | None = None
    ):
        check_kind("config", config, TartConfig)
        check_kind("backbone", backbone, PreTrainedModel, type(None))
        check_kind("reasoner", reasoner, TartReasoner, type(None))
        super().__init__(config)
        if backbone is None:
            if config.of_backbone is None:
                raise ValueError(
                    f"The config describes no backbone: give {config.backbone_key}, or compose one with from_backbone."
                )
            self.backbone = build_tower(config.of_backbone, config.modality)
        else:
            self.backbone = backbone
        self.reasoner = TartReasoner(config.reasoner) if reasoner is None else reasoner
        for given in (backbone, reasoner):
            # post_init must not touch what is loaded, layers added after loading included
            for module in given.modules() if given is not None else ():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        self.support: SupportSet | None = None
        self.card_facts = CardFacts()
        self.repository: dict[str, Any] = {}  # name, revision and subfolder of the task itself
        self.hub_arguments: dict[str, Any] = {}  # token, cache and the like, for the tokenizer of the backbone
        self.reference_digest: BackboneDigest | None = None
        self._prepared: PreparedSupport | None = None
        self._traits: BackboneTraits | None = None
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
        protocol: str = "stream",
        template: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        layers: int | str | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        **loading_arguments: Any,
    ) -> Self:
        r"""
        Compose a backbone that reads what this class classifies with a reasoner.

        A repository of sentence-transformers is read as its modules say: what is not given of `pooling`, `normalize`,
        `layers` and `max_length` is that of its sentence embedding.

        Args:
            name_or_model (`str`, `Path` or `PreTrainedModel`):
                Hub id or folder of the backbone, which may be a peft adapter; `"mini"`, the small language model
                inside this package; or a loaded model or `PeftModel`, of which the part below a head is taken, frozen
                and put in evaluation mode. Of a model that reads other things too, the tower that reads these is
                taken, and it alone is loaded. A loaded model does not contain the modules of sentence-transformers:
                give its name to have them applied.
            reasoner ([`TartReasoner`], `str` or `Path`, *optional*):
                A reasoner, or where to load one from; the one inside this package when not given.
            protocol (`str`, *optional*, defaults to `"stream"`), template (`str`, *optional*),
            pooling (`str`, *optional*), normalize (`bool`, *optional*), max_length (`int`, *optional*):
                As in the configuration of this class; where not given, and no sentence encoder says otherwise,
                `"mean"`, `False` and all that tokenizer and backbone allow.
            layers (`int` or `str`, *optional*):
                As in [`TartConfig`]; when not given -1 for a sentence encoder and for a reasoner that projects its
                input, else `"all"`.
            revision (`str`, *optional*):
                Revision of the backbone's repository. A loaded model does not know its own: give it here to note it.
            loading_arguments:
                Passed to `AutoModel.from_pretrained`: `dtype`, `device_map`, `max_memory`, `attn_implementation`,
                `quantization_config`, `token`, `cache_dir`, `trust_remote_code`, ... Code of the repository runs with
                `trust_remote_code=True` only. `id2label` or `label2id` name the classes of any support set.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: When the backbone reads something else, is a sentence encoder of modules that this package does
                not have, or needs code of its repository that may not run.
            CorruptFileError: When its files are damaged, or its weights are not safetensors.
            OSError: When there is no such backbone.
        """
        embedding: dict[str, Any] = {"protocol": protocol, "template": template, "pooling": pooling}
        embedding.update(normalize=normalize, layers=layers, max_length=max_length)
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
                `cache_dir` and `local_files_only` are for both.

        Raises:
            BackboneNotFoundError: When the backbone cannot be loaded.
            BackboneMismatchError: When the support set was embedded by another backbone.
            CorruptFileError: When weights or support set are damaged or incomplete, or `config.json` does not have the
                embedding settings of the support set.
            ValueError: When the repository is not a TART repository.
        """
        with explain_failures(pretrained_model_name_or_path):
            return load_composed(cls, pretrained_model_name_or_path, *model_args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the reasoner; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        public = {name: value for name, value in self.hub_arguments.items() if name != "token"}
        return {**state_without_capture_hooks(self), "hub_arguments": public}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        restore(self)

    def _answer(
        self, batch: dict[str, Tensor], support: SupportSet | PreparedSupport | None, labels: Tensor | None
    ) -> SequenceClassifierOutput:
        """Embed a batch and read the support set for it."""
        prepared = self.prepare_support(support)
        logits = self._reason(self.embedder().embed_batch(batch, prepared.support.prompt, prepared.prefix), prepared)
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits, check_labels(labels, logits))
        return SequenceClassifierOutput(loss=loss, logits=logits)


class TartForSequenceClassification(TartPreTrainedModel):
    r"""
    Few-shot classifier of texts; see [`TartPreTrainedModel`].

    ```python
    >>> model = TartForSequenceClassification.from_backbone("EleutherAI/pythia-160m")
    >>> support = model.encode_support(examples, tokenizer)
    >>> logits = model(**tokenizer("free entry, text WIN now", return_tensors="pt"), support=support).logits
    ```
    """

    main_input_name = "input_ids"
    auto_map_classes = {
        "AutoConfig": "TartConfig",
        "AutoModel": "TartForSequenceClassification",
        "AutoModelForSequenceClassification": "TartForSequenceClassification",
    }

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        support: SupportSet | PreparedSupport | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        r"""
        Classify tokenized texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                Token ids, padded on either side.
            attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            token_type_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Segments of text pairs, for backbones that know them.
            support ([`SupportSet`], *optional*):
                The labeled examples; the stored support set when not given.
            labels (`torch.LongTensor` of shape `(batch,)`, *optional*):
                True classes; the output then holds the cross-entropy.
            kwargs:
                Nothing, but for what says that other outputs are not wanted, such as `output_attentions=False`.

        Returns:
            `SequenceClassifierOutput`: `logits` (batch, num_labels) float32 are log-probabilities up to a constant.

        Raises:
            TypeError: On other arguments, and on something else than tensors of integers.
            ValueError: Without a support set, on ids, masks and labels that cannot be, or when the backbone gives
                embeddings that are not finite.
        """
        refuse_unknown(kwargs)
        batch = check_tokens(self.backbone, input_ids, attention_mask, token_type_ids)
        return self._answer(batch, support, labels)


__all__ = ["PreparedSupport", "TartForSequenceClassification", "TartPreTrainedModel"]
