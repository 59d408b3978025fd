"""Configurations of the composed classifiers of texts, images and audio."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict, validated_field
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.checks.bounds import (
    MAX_CLASSES,
    MAX_INTEGER,
    MAX_TEMPLATE,
    check_checksums,
    check_fields,
    check_inside,
    check_integer,
)
from transformers_tart.checks.foreign_config import ForeignConfig
from transformers_tart.checks.label_names import check_label_names, class_numbers
from transformers_tart.checks.strict_config import FieldError, plain_errors
from transformers_tart.checks.templates import check_hypothesis_template, parse_template
from transformers_tart.configuration_reasoner import TartReasonerConfig
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.modality import AUDIO, IMAGE, TEXT, Modality
from transformers_tart.inputs.text_options import DEFAULT_HYPOTHESIS
from transformers_tart.inputs.views import (
    IN_CONTEXT_PROTOCOLS,
    MEDIA_POOLINGS,
    POOLINGS,
    PROMPT_POOLINGS,
    PROTOCOLS,
    as_views,
    check_no_view_arguments,
    check_pooling,
    single_view,
    take_view_arguments,
)


EMBEDDING_FIELDS = tuple(field.name for field in fields(EmbeddingOptions))
TEXT_FIELDS = ("protocol", "template", "max_length", "prompt", "lower_case")


@plain_errors
@strict
class TartBaseConfig(PreTrainedConfig):
    r"""
    Configuration of a composed classifier: a frozen backbone, by reference, and a reasoner.

    Args:
        base_model_name_or_path (`str`, *optional*):
            Hub id or folder of the backbone, or `"mini"`, the language model inside this package.
        base_model_revision (`str`, *optional*):
            Revision of the backbone's repository; of `"mini"`, a digest of its files.
        base_model_subfolder (`str`, *optional*):
            Folder of the backbone inside its repository.
        include_backbone (`bool`, *optional*), has_support (`bool`, *optional*), has_chosen_names (`bool`, *optional*):
            Whether backbone and support set are saved, and whether a user named the classes. Set by `save_pretrained`.
        reasoner_config (`dict` or [`TartReasonerConfig`], *optional*):
            Configuration of the reasoner.
        views (`list[View]` or `list[dict]`, *optional*):
            The views of each input; the mean over all layers when not given.
        pooling (`str`, *optional*), normalize (`bool`, *optional*), layers (`int` or `str`, *optional*):
            The only view, as an alternative to `views` and as configs of version 0.1 have it; kept as `views`.
        sha256 (`dict[str, str]`, *optional*):
            SHA-256 of the weights and of the support set beside a saved config, compared when they are loaded. Written
            by `save_pretrained`; delete it after changing them on purpose.
    """

    modality: ClassVar[Modality]
    backbone_key: ClassVar[str]
    poolings: ClassVar[tuple[str, ...]] = MEDIA_POOLINGS

    base_model_name_or_path: str | None = None
    base_model_revision: str | None = None
    base_model_subfolder: str | None = None
    include_backbone: bool = False
    has_support: bool = False
    has_chosen_names: bool = False
    reasoner_config: dict | PreTrainedConfig | None = None
    views: list | tuple | None = None
    sha256: dict[str, str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs = self.drop_text_fields(kwargs)
        self._take_views(kwargs)
        check_fields(type(self), self.dtype, kwargs)
        self._check_labels()
        described = self.base_model_config
        kind = described.get("model_type") if isinstance(described, dict) else getattr(described, "model_type", None)
        if str(kind).startswith("tart"):  # each would be built inside the one before
            raise ValueError(
                f'{self.backbone_key} is of model type "{kind}", one of this package, which cannot be a backbone.'
            )
        if isinstance(described, dict) and kind is not None and kind not in CONFIG_MAPPING:
            setattr(self, self.backbone_key, ForeignConfig.from_fields(described))
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config; the Auto classes leave options of embeddings to `from_pretrained` of the model."""
        if not kwargs.get("return_unused_kwargs"):
            return super().from_dict(config_dict, **kwargs)
        left = {name: kwargs.pop(name) for name in EMBEDDING_FIELDS if name in kwargs}
        config, unused = super().from_dict(config_dict, **kwargs)
        return config, {**unused, **left}

    @property
    def base_model_config(self) -> Any:
        """The configuration of the backbone, `None` where there is none."""
        return getattr(self, self.backbone_key)

    @property
    def embedding_options(self) -> EmbeddingOptions:
        """The options with which examples and queries are embedded."""
        self.validate_embedding()  # again, since fields may have been set
        return EmbeddingOptions(**{name: getattr(self, name) for name in EMBEDDING_FIELDS if hasattr(self, name)})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {**super().to_dict(), "views": [view.as_dict() for view in as_views(self.views)]}

    @property
    def reasoner(self) -> TartReasonerConfig:
        """The configuration of the reasoner."""
        if not isinstance(self.reasoner_config, TartReasonerConfig):
            raise ValueError(f"reasoner_config is {type(self.reasoner_config).__name__}, not a TartReasonerConfig.")
        return self.reasoner_config

    @classmethod
    def drop_text_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields without those for texts alone, which older configs of images and audio have too.

        Raises:
            FieldError: When one of them does not have its default.
        """
        if issubclass(cls, TartConfig):
            return dict(fields)
        if fields.get("protocol", "stream") != "stream" or fields.get("template") is not None:
            raise FieldError(
                f"protocol is {shorten(fields.get('protocol', 'stream'))}; {cls.modality} inputs are embedded each "
                'alone: protocol="stream", without a template.'
            )
        for field in ("max_length", "prompt", "lower_case"):
            if fields.get(field) not in (None, False):
                raise FieldError(f"{field} is {shorten(fields[field])}, which is for texts, not for {cls.modality}.")
        return {name: value for name, value in fields.items() if name not in TEXT_FIELDS}

    def _take_views(self, arguments: dict[str, Any]) -> None:
        """Set the views from the field or, for configs of version 0.1, from arguments, which are taken out."""
        given = take_view_arguments(arguments, self.views)
        self.views = (single_view(given, "all"),) if self.views is None else as_views(self.views)

    def _check_labels(self) -> None:
        if self.id2label is None:
            return
        names = class_numbers(self.id2label, "id2label")
        if len(self.id2label) > MAX_CLASSES or sorted(map(int, self.id2label)) != list(range(len(self.id2label))):
            raise ValueError(
                f"id2label has {len(self.id2label)} indices; they must be 0, 1, ... in turn, at most {MAX_CLASSES}."
            )
        check_label_names("id2label", list(names.values()))

    def validate_reference(self) -> None:
        """Check the reference to the backbone."""
        for field in ("base_model_name_or_path", "base_model_revision"):
            value = getattr(self, field)
            if value is not None and (not value or len(value) > MAX_TEMPLATE or not value.isprintable()):
                raise ValueError(f"{field} is {value[:100]!r}, which names nothing that can be loaded.")
        check_checksums("sha256", self.sha256)
        if self.base_model_subfolder is not None:
            check_inside("base_model_subfolder", self.base_model_subfolder)

    def validate_embedding(self) -> None:
        """Check the fields that determine embeddings."""
        self.drop_text_fields(vars(self))
        check_no_view_arguments(vars(self))
        has_prompt = getattr(self, "protocol", "stream") in IN_CONTEXT_PROTOCOLS
        for view in as_views(self.views):
            check_pooling(view.pooling, PROMPT_POOLINGS if has_prompt else self.poolings)
            if view.template is not None and not self.modality.is_tokenized:
                raise ValueError(f"template is {shorten(view.template)}, which is for texts, not for {self.modality}.")


def sub_configs(backbone_key: str, model_type: str) -> dict[str, SubConfigSpec]:
    """Return the parts of a composed config: the backbone, by default of type `model_type`, and the reasoner."""
    backbone = SubConfigSpec(config_class=AutoConfig, model_type=model_type, optional=True)
    reasoner = SubConfigSpec(config_class=TartReasonerConfig, model_type="tart_reasoner")
    return {backbone_key: backbone, "reasoner_config": reasoner}


def _check_max_length(value: int | None) -> None:
    if value is not None:
        check_integer("max_length", as_count(value, "max_length", ", or None"), 1, MAX_INTEGER)


@plain_errors
@strict
class TartConfig(TartBaseConfig):
    r"""
    Configuration of a [`TartForSequenceClassification`]: [`TartBaseConfig`] with the fields for texts.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the backbone.
        protocol (`str`, *optional*, defaults to `"stream"`):
            How texts become embeddings: `"stream"`, each text alone; `"vanilla"`, all examples in one prompt, which
            the query follows; or `"loo"`, each example after all the others, as the query is.
        template (`str`, *optional*):
            The template of the views of a prompt, with `{text}`, for pairs `{text_pair}`, and `{label}`; the paper's,
            `"Sentence: {text}\nLabel: {label}\n"`, when not given.
        max_length (`int`, *optional*):
            Longest text in tokens; the limit of the tokenizer and the backbone when not given.
        prompt (`str`, *optional*):
            Text before each text, of examples and queries, tokenized together with it, in all views. That of the e5
            family, `"query: "`, is not in their files.
        lower_case (`bool`, *optional*, defaults to `False`):
            Whether texts are put in lower case before the tokenizer reads them.
        hypothesis_template (`str`, *optional*, defaults to `"This text expresses {}."`):
            Text around the name of a class, in place of `{}`, as label hints embed it.
    """

    model_type = "tart"
    modality = TEXT
    backbone_key = "text_config"
    poolings = POOLINGS
    sub_configs_defaults = sub_configs("text_config", "gpt2")

    text_config: dict | PreTrainedConfig | None = None
    protocol: str = "stream"
    max_length: int | None = validated_field(_check_max_length, default=None)
    prompt: str | None = None
    lower_case: bool = False
    hypothesis_template: str = DEFAULT_HYPOTHESIS

    def validate_hypothesis_template(self) -> None:
        """Check the template of the names of classes."""
        check_hypothesis_template(self.hypothesis_template)

    def validate_protocol(self) -> None:
        """Check the protocol, and the template that it may have."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {shorten(self.protocol)}; it must be one of {PROTOCOLS}.")
        has_prompt, views = self.protocol in IN_CONTEXT_PROTOCOLS, as_views(self.views)
        for view in views:
            if view.is_of_prompt and not has_prompt:
                raise ValueError(
                    f'The template holds {{label}}, but protocol "{self.protocol}" embeds texts alone; it must be one '
                    f"of {IN_CONTEXT_PROTOCOLS} for such a template."
                )
            if has_prompt and view.template is not None:
                parse_template(view.template)
        if has_prompt and len({view.template for view in views}) > 1:
            raise ValueError(
                f'Protocol "{self.protocol}" reads all views from one prompt, and they have several templates; give '
                "each view the same."
            )


@plain_errors
@strict
class TartImageConfig(TartBaseConfig):
    """Configuration of a [`TartForImageClassification`]: [`TartBaseConfig`] with `vision_config`, of the backbone."""

    model_type = "tart_image"
    modality = IMAGE
    backbone_key = "vision_config"
    poolings = (*MEDIA_POOLINGS, "grid")
    sub_configs_defaults = sub_configs("vision_config", "vit")

    vision_config: dict | PreTrainedConfig | None = None


@plain_errors
@strict
class TartAudioConfig(TartBaseConfig):
    """Configuration of a [`TartForAudioClassification`]: [`TartBaseConfig`] with `audio_config`, of the backbone."""

    model_type = "tart_audio"
    modality = AUDIO
    backbone_key = "audio_config"
    poolings = (*MEDIA_POOLINGS, "energy")
    sub_configs_defaults = sub_configs("audio_config", "wav2vec2")

    audio_config: dict | PreTrainedConfig | None = None


__all__ = [
    "EMBEDDING_FIELDS",
    "EmbeddingOptions",
    "TartAudioConfig",
    "TartBaseConfig",
    "TartConfig",
    "TartImageConfig",
    "TartReasonerConfig",
    "sub_configs",
]
