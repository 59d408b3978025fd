"""Configuration of the reasoner."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.bounds import (
    MAX_CLASSES,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_ORDERS,
    MAX_POSITIONS,
    MAX_SMOOTHERS,
    MAX_SUPPORT,
    MAX_WIDTH,
    check_checksums,
    check_fields,
    check_finite,
    check_integer,
    check_numbers,
)
from transformers_tart.checks.strict_config import plain_errors


PROJECTIONS = ("none", "clipped", "whitened_pca")
# Smallest and largest value of each integer field.
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
            ones. The `kernel` does not depend on the order.
        max_classes (`int`, *optional*):
            Most classes read in one pass; `None` means any number. With 2, more classes are read one against the rest,
            in one batch.
        projection (`str`, *optional*):
            Input of the reasoner: `"none"`, the embeddings themselves; `"clipped"`, the embeddings with the directions
            of outlying variance scaled down; or `"whitened_pca"`, their first `num_components` whitened principal
            components. Projections are fitted on the support set. Defaults to `"whitened_pca"` for `gpt2`, else to
            `"clipped"`.
        num_components (`int`, *optional*, defaults to 16):
            Components of the projection.
        weighing_size (`int`, *optional*):
            `kernel`: width of the network that weighs views and label hints. `None` means a mixture of the views by
            their evidence, and no hints.
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
    weighing_size: int | None = None
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
        if self.weighing_size is not None:
            check_integer("weighing_size", self.weighing_size, 1, MAX_WIDTH)
            if self.architecture == "gpt2":
                raise ValueError(
                    f"weighing_size is {self.weighing_size}, but the gpt2 architecture has no leave-one-out "
                    "predictions by which to weigh views and hints; leave it out."
                )
        check_checksums("sha256", self.sha256)
        if self.max_classes is not None:
            check_integer("max_classes", self.max_classes, 2, MAX_CLASSES)


__all__ = ["TartReasonerConfig"]
