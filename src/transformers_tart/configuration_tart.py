"""Configurations of the reasoner and of the composed classifier."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from huggingface_hub.dataclasses import strict, validated_field
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from transformers_tart.checks.arguments import as_count, shorten
from transformers_tart.checks.bounds import (
    MAX_CLASSES,
    MAX_HEADS,
    MAX_INTEGER,
    MAX_LAYERS,
    MAX_ORDERS,
    MAX_POSITIONS,
    MAX_SMOOTHERS,
    MAX_SUPPORT,
    MAX_TEMPLATE,
    MAX_WIDTH,
    check_fields,
    check_finite,
    check_inside,
    check_integer,
    check_numbers,
)
from transformers_tart.checks.label_names import check_label_names, class_numbers
from transformers_tart.checks.strict_config import plain_errors
from transformers_tart.checks.templates import parse_template
from transformers_tart.loading.checksums import check_field


IN_CONTEXT_PROTOCOLS = ("vanilla", "loo")
PROTOCOLS = ("stream", *IN_CONTEXT_PROTOCOLS)
PROJECTIONS = ("none", "clipped", "whitened_pca")
POOLINGS = ("mean", "last", "first", "max")
# Of the reasoner: the least and the most of what counts something.
BOUNDS = {
    "hidden_size": (1, MAX_WIDTH),
    "num_hidden_layers": (0, MAX_LAYERS),
    "intermediate_size": (1, 4 * MAX_WIDTH),
    "num_softmax_heads": (0, MAX_HEADS),
    "head_dim": (1, MAX_WIDTH),
    "num_attention_heads": (1, MAX_HEADS),
    "n_positions": (2, MAX_POSITIONS),
    "max_support": (2, MAX_SUPPORT),
    "num_orders": (1, MAX_ORDERS),
    "num_components": (1, MAX_WIDTH),
}


@dataclass(frozen=True)
class EmbeddingOptions:
    """The options that determine an embedding, beside the backbone and its input.

    Args:
        protocol (`str`, *optional*, defaults to `"stream"`):
            `"stream"`, `"vanilla"` or `"loo"`, as in [`TartConfig`].
        template (`str`, *optional*):
            Template of an example in a prompt; the paper's when not given.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"`, `"last"`, `"first"` or `"max"`.
        normalize (`bool`, *optional*, defaults to `False`):
            Whether each embedding is divided by its Euclidean norm.
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the backbone's hidden states, or `"all"`.
        max_length (`int`, *optional*):
            Longest text in tokens; the limit of the tokenizer and the backbone when not given.
    """

    protocol: str = "stream"
    template: str | None = None
    pooling: str = "mean"
    normalize: bool = False
    layers: int | str = -1
    max_length: int | None = None

    @property
    def has_prompt(self) -> bool:
        """Whether queries are read after a prompt that holds the examples."""
        return self.protocol in IN_CONTEXT_PROTOCOLS


EMBEDDING_FIELDS = tuple(field.name for field in fields(EmbeddingOptions))


def _check_max_length(value: int | None) -> None:
    if value is not None:
        check_integer("max_length", as_count(value, "max_length", ", or None"), 1, MAX_INTEGER)


@plain_errors
@strict
class TartReasonerConfig(PreTrainedConfig):
    r"""
    Configuration of a [`TartReasoner`].

    Args:
        architecture (`str`, *optional*, defaults to `"kernel"`):
            Key of the architecture: `"kernel"` (dimension-free, order-free, any number of classes) or `"gpt2"` (the
            head of the TART paper, arXiv 2306.07536).
        hidden_size (`int`, *optional*, defaults to 32):
            Width of the tokens.
        num_hidden_layers (`int`, *optional*):
            Number of layers. Defaults to 4 for `gpt2` and to 0 for `kernel`, whose smoothers are outside the layers.
        intermediate_size (`int`, *optional*):
            Width of the MLPs; four times `hidden_size` when not given.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Epsilon of the layer norms.
        kernel_sharpness (`list[float]`, *optional*, defaults to `[1.0, 2.0, 4.0]`):
            `kernel`: similarity of two examples is exp(-sharpness * half their squared distance), in units of the
            support set's mean squared norm; 0 is the limit, their inner product.
        ridge_strengths (`list[float]`, *optional*, defaults to `[0.02, 0.1, 0.5]`):
            `kernel`: regularization strengths of the ridge smoothers, in units of the root of k. Every sharpness with
            every strength is one smoother.
        num_softmax_heads (`int`, *optional*, defaults to 2):
            `kernel`: heads that attend by a softmax over squared distances.
        head_dim (`int`, *optional*, defaults to 4):
            `kernel`: width of each head.
        num_attention_heads (`int`, *optional*, defaults to 8):
            `gpt2`: attention heads.
        n_positions (`int`, *optional*, defaults to 258):
            `gpt2`: (x, y) pairs of a sequence, the query's included, as the published code counts: k is at most
            `n_positions - 1`, and the transformer has `2 * n_positions` positions.
        max_support (`int`, *optional*, defaults to 2048):
            Largest support set read in one pass. Larger ones are split into balanced subsets of at most this size
            whose log-probabilities are averaged.
        num_orders (`int`, *optional*, defaults to 1):
            `gpt2`: orders of the support set whose log-probabilities are averaged, the one given and seeded random
            ones. The `kernel` knows no order.
        max_classes (`int`, *optional*):
            Most classes read in one pass; `None` means any number. With 2, more classes are read one against the rest,
            in one batch.
        projection (`str`, *optional*):
            What the reasoner reads: `"none"`, the embeddings themselves; `"clipped"`, these without directions that
            drown all others; or `"whitened_pca"`, their first `num_components` whitened principal components. Both
            are fitted on the support set. Defaults to `"whitened_pca"` for `gpt2`, else to `"clipped"`.
        num_components (`int`, *optional*, defaults to 16):
            Components of the projection.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.
        sha256 (`dict[str, str]`, *optional*):
            SHA-256 of the weights beside a saved config, compared when they are loaded. Written by
            `save_pretrained`; delete it after changing them on purpose.
    """

    model_type = "tart_reasoner"

    architecture: str = "kernel"
    hidden_size: int = 32
    num_hidden_layers: int | None = None
    intermediate_size: int | None = None
    layer_norm_eps: float = 1e-5
    kernel_sharpness: list[float] | None = None
    ridge_strengths: list[float] | None = None
    num_softmax_heads: int = 2
    head_dim: int = 4
    num_attention_heads: int = 8
    n_positions: int = 258
    max_support: int = 2048
    num_orders: int = 1
    max_classes: int | None = None
    projection: str | None = None
    num_components: int = 16
    initializer_range: float = 0.02
    sha256: dict[str, str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_fields(type(self), self.dtype, kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.num_hidden_layers is None:
            self.num_hidden_layers = 4 if self.architecture == "gpt2" else 0
        if self.kernel_sharpness is None:
            self.kernel_sharpness = [1.0, 2.0, 4.0]
        if self.ridge_strengths is None:
            self.ridge_strengths = [0.02, 0.1, 0.5]
        if self.projection is None:
            self.projection = "whitened_pca" if self.architecture == "gpt2" else "clipped"
        super().__post_init__(**kwargs)

    @property
    def num_smoothers(self) -> int:
        """Ridge smoothers of the `kernel` architecture."""
        return len(self.kernel_sharpness or ()) * len(self.ridge_strengths or ())

    def validate_reasoner(self) -> None:
        """Check that the fields describe a reasoner that can be built."""
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection is {shorten(self.projection)}; it must be one of {PROJECTIONS}.")
        for field, bounds in BOUNDS.items():
            check_integer(field, getattr(self, field), *bounds)
        check_numbers("ridge_strengths", self.ridge_strengths, 0, MAX_SMOOTHERS)
        check_numbers("kernel_sharpness", self.kernel_sharpness, 0, MAX_SMOOTHERS)
        if min(self.ridge_strengths or ()) <= 0:
            raise ValueError(f"ridge_strengths must be positive, at least one; got {self.ridge_strengths}.")
        if self.num_smoothers > MAX_SMOOTHERS:
            raise ValueError(
                f"kernel_sharpness and ridge_strengths make {self.num_smoothers} smoothers; at most {MAX_SMOOTHERS} "
                "are read."
            )
        check_finite("layer_norm_eps", self.layer_norm_eps, 0)
        check_finite("initializer_range", self.initializer_range, 0)
        if self.num_orders > 1 and self.architecture == "kernel":
            raise ValueError(
                f"num_orders is {self.num_orders}; it must be at least 1, and 1 for the kernel architecture, which "
                "gives the same answer for every order."
            )
        if self.architecture == "gpt2" and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size is {self.hidden_size}, which num_attention_heads={self.num_attention_heads} does not "
                "divide."
            )
        check_field(self.sha256)
        if self.max_classes is not None:
            check_integer("max_classes", self.max_classes, 2, MAX_CLASSES)


class ForeignConfig(PreTrainedConfig):
    """Config of a backbone whose class is code of its repository: the fields as they are."""

    foreign_type: str = ""

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "ForeignConfig":
        """Make one of the fields of a config of another class."""
        others = {name: value for name, value in fields.items() if name not in ("model_type", "foreign_type")}
        check_fields(cls, fields.get("dtype"), others)
        return cls(foreign_type=str(fields["model_type"]), **others)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their own model type."""
        fields = super().to_dict()
        return {**fields, "model_type": fields.pop("foreign_type")}


@plain_errors
@strict
class TartConfig(PreTrainedConfig):
    r"""
    Configuration of a [`TartForSequenceClassification`]: a frozen backbone, by reference, and a reasoner.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the backbone.
        base_model_name_or_path (`str`, *optional*):
            Hub id or folder of the backbone, or `"mini"`, the one inside this package.
        base_model_revision (`str`, *optional*):
            Revision of the backbone's repository; of `"mini"`, a digest of its files.
        base_model_subfolder (`str`, *optional*):
            Folder of the backbone inside its repository.
        include_backbone (`bool`, *optional*, defaults to `False`):
            Whether the backbone's weights are saved with the reasoner's. Set by `save_pretrained`.
        has_support (`bool`, *optional*, defaults to `False`):
            Whether a support set is saved with the model. Set by `save_pretrained`.
        reasoner_config (`dict` or [`TartReasonerConfig`], *optional*):
            Configuration of the reasoner.
        protocol (`str`, *optional*, defaults to `"stream"`):
            How texts become embeddings: `"stream"`, each text alone; `"vanilla"`, all examples in one prompt, which
            the query follows; or `"loo"`, each example after all the others, as the query is.
        template (`str`, *optional*):
            How an example stands in a prompt, with `{text}`, for pairs `{text_pair}`, and `{label}`; the paper's,
            `"Sentence: {text}\nLabel: {label}\n"`, when not given.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` of the tokens of a text, its `"last"` token, its `"first"`, which many backbones that read in both
            directions add for the whole, or `"max"`, the greatest value of each dimension.
        normalize (`bool`, *optional*, defaults to `False`):
            Whether each embedding, of each layer, is divided by its Euclidean norm.
        layers (`int` or `str`, *optional*, defaults to `"all"`):
            Index into the backbone's hidden states (0 is the input embedding, -1 the last layer), or `"all"`: every
            one, each centered and scaled by the support set, side by side.
        max_length (`int`, *optional*):
            Longest text in tokens; what the tokenizer and the backbone allow when not given.
        sha256 (`dict[str, str]`, *optional*):
            SHA-256 of the weights and of the support set beside a saved config, compared when they are loaded. Written
            by `save_pretrained`; delete it after changing them on purpose.
    """

    model_type = "tart"
    modality = "text"
    backbone_key = "text_config"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="gpt2", optional=True),
        "reasoner_config": SubConfigSpec(config_class=TartReasonerConfig, model_type="tart_reasoner"),
    }

    text_config: dict | PreTrainedConfig | None = None
    base_model_name_or_path: str | None = None
    base_model_revision: str | None = None
    base_model_subfolder: str | None = None
    include_backbone: bool = False
    has_support: bool = False
    reasoner_config: dict | PreTrainedConfig | None = None
    protocol: str = "stream"
    template: str | None = None
    pooling: str = "mean"
    normalize: bool = False
    layers: int | str = "all"
    max_length: int | None = validated_field(_check_max_length, default=None)
    sha256: dict[str, str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_fields(type(self), self.dtype, kwargs)
        self.check_labels()
        if self.id2label is not None:
            class_numbers(self.id2label, "id2label")
        described = getattr(self, self.backbone_key)
        kind = described.get("model_type") if isinstance(described, dict) else getattr(described, "model_type", None)
        if str(kind).startswith("tart"):  # each would be built inside the one before
            raise ValueError(
                f'{self.backbone_key} is of model type "{kind}", one of this package, which cannot be a backbone.'
            )
        if isinstance(described, dict) and kind is not None and kind not in CONFIG_MAPPING:
            setattr(self, self.backbone_key, ForeignConfig.of(described))
        super().__post_init__(**kwargs)

    @property
    def of_backbone(self) -> PreTrainedConfig | None:
        """The configuration of the backbone, where there is one."""
        return getattr(self, self.backbone_key)

    @property
    def embedding_options(self) -> EmbeddingOptions:
        """The options with which examples and queries are embedded."""
        return EmbeddingOptions(**{name: getattr(self, name) for name in EMBEDDING_FIELDS})

    @property
    def reasoner(self) -> TartReasonerConfig:
        """The configuration of the reasoner."""
        if not isinstance(self.reasoner_config, TartReasonerConfig):
            raise ValueError(f"reasoner_config is {type(self.reasoner_config).__name__}, not a TartReasonerConfig.")
        return self.reasoner_config

    def check_labels(self) -> None:
        """Check the names of the classes: strings, each once, by their indices."""
        if self.id2label is None:
            return
        if not isinstance(self.id2label, Mapping):
            raise ValueError(f"id2label is {shorten(self.id2label)}; it must be a dict of class numbers and names.")
        try:
            indices = sorted(int(index) for index in self.id2label)
        except (TypeError, ValueError) as err:
            raise ValueError(f"id2label has indices that are no integers: {err}.") from err
        if len(indices) > MAX_CLASSES or indices != list(range(len(indices))):
            raise ValueError(
                f"id2label has {len(indices)} indices; they must be 0, 1, ... in turn, at most {MAX_CLASSES}."
            )
        check_label_names("id2label", list(self.id2label.values()))

    def validate_reference(self) -> None:
        """Check where the backbone is."""
        for field in ("base_model_name_or_path", "base_model_revision"):
            value = getattr(self, field)
            if value is not None and (not value or len(value) > MAX_TEMPLATE or not value.isprintable()):
                raise ValueError(f"{field} is {value[:100]!r}, which names nothing that can be loaded.")
        check_field(self.sha256)
        if self.base_model_subfolder is not None:
            check_inside("base_model_subfolder", self.base_model_subfolder)

    def validate_template(self) -> None:
        """Check that a template can be read, and is."""
        if self.template is not None and len(self.template) > MAX_TEMPLATE:
            raise ValueError(f"template has {len(self.template)} characters; at most {MAX_TEMPLATE} are read.")
        if self.template is not None:
            parse_template(self.template)
        if self.template is not None and self.protocol not in IN_CONTEXT_PROTOCOLS:
            raise ValueError(
                f'A template is given, but protocol "{self.protocol}" embeds texts as they are; it must be one of '
                f"{IN_CONTEXT_PROTOCOLS} for a template."
            )

    def validate_embedding(self) -> None:
        """Check the fields that say how texts become embeddings."""
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {shorten(self.protocol)}; it must be one of {PROTOCOLS}.")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling is {shorten(self.pooling)}; it must be one of {POOLINGS}.")
        if isinstance(self.layers, str) and self.layers != "all":
            raise ValueError(f'layers is {shorten(self.layers)}; it must be an index or "all".')
        if self.layers != "all":
            check_integer("layers", self.layers, -MAX_LAYERS, MAX_LAYERS)


__all__ = ["EMBEDDING_FIELDS", "EmbeddingOptions", "TartConfig", "TartReasonerConfig"]
