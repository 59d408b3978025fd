"""Projections from embeddings to reasoner inputs, fitted on the support set only."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from transformers_tart.checks.arguments import as_count
from transformers_tart.checks.tensors import at_least_float32, check_tensor
from transformers_tart.checks.tracing import is_traced


EVEN = 0.5
NOISE = 1e-9  # share of the largest variance below which a direction holds only rounding errors
STEPS = 40  # of the bisection, on a logarithmic scale
CONSTANT = 1e-6  # share of the size of a layer below which its spread is only rounding errors


class Projection:
    """A map of embeddings (..., n, dim) to reasoner inputs (..., n, m), whose fitted tensors are attributes."""

    mean: Tensor | None = None  # until `fit`

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Self:
        """Fit on support embeddings (..., k, dim), with weights (..., k) where the projection reads them."""
        raise NotImplementedError

    def transform(self, x: Tensor) -> Tensor:
        """Project embeddings."""
        raise NotImplementedError

    def _center(self, x: Tensor) -> Tensor:
        if self.mean is None:
            raise ValueError(f"This {type(self).__name__} is not fitted; call fit(support_embeddings) first.")
        if x.dim() < 2 or x.shape[-1] != self.mean.shape[-1]:
            dim, shape = self.mean.shape[-1], tuple(x.shape)
            raise ValueError(f"{type(self).__name__} was fitted on {dim} dimensions, these have the shape {shape}.")
        return at_least_float32(x) - self.mean

    def to(self, device: torch.device | str) -> Self:
        """Copy the projection to another device."""
        moved = copy.copy(self)
        vars(moved).update({name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)})
        return moved


class Identity(Projection):
    """The projection that changes nothing."""

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Self:
        """Return the projection, which has no parameters."""
        return self

    def transform(self, x: Tensor) -> Tensor:
        """Return the embeddings."""
        return x


class WhitenedPCA(Projection):
    """The first principal components, each scaled to unit variance over the support set (arXiv 2306.07536, section 4).

    Directions in which the support set does not vary are left at zero instead of being divided by zero, so with k at
    or under `n_components` there are fewer components, padded with zeros. Signs are fixed as scikit-learn fixes
    them: the largest loading of each component is positive.

    Args:
        n_components (`int`):
            Number of output dimensions.
    """

    def __init__(self, n_components: int):
        self.n_components = as_count(n_components, "n_components")
        self.components: Any = None

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Self:
        """Fit on embeddings (..., k, dim), k at least 2, in float32."""
        if weights is not None:
            raise ValueError("WhitenedPCA reads no weights of examples; leave them out.")
        _check(x)
        if x.dim() < 2 or x.shape[-2] < 2 or x.shape[-1] == 0:
            raise ValueError(f"WhitenedPCA needs at least two embeddings, (..., k, dim); got shape {tuple(x.shape)}.")
        x = at_least_float32(x)
        if not is_traced() and not torch.isfinite(x).all():
            raise ValueError("WhitenedPCA cannot be fitted on embeddings that hold NaN or infinite values.")
        mean = x.mean(-2, keepdim=True)
        _, singular, rows = torch.linalg.svd(x - mean, full_matrices=False)
        count = min(self.n_components, singular.shape[-1])
        singular, rows = singular[..., :count], rows[..., :count, :]
        strongest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
        rows = torch.where(strongest < 0, -rows, rows)
        # rounding errors of the decomposition, and of the centering
        size = torch.maximum(singular[..., :1] * max(x.shape[-2:]), x.abs().amax((-2, -1))[..., None])
        noise = size * torch.finfo(x.dtype).eps
        factor = torch.where(singular > noise, (x.shape[-2] - 1) ** 0.5 / singular.clamp_min(1e-38), 0.0)
        components = (rows * factor[..., None]).transpose(-1, -2)
        self.mean, self.components = mean, torch.nn.functional.pad(components, (0, self.n_components - count))
        return self

    def transform(self, x: Tensor) -> Tensor:
        """Project embeddings (..., n, dim) to (..., n, n_components) float32."""
        _check(x)
        return self._center(x) @ self.components


def _check(x: Tensor) -> None:
    check_tensor("The tensor of embeddings", x)
    if x.is_complex():
        raise TypeError(f"The embeddings are {x.dtype}; they must be real numbers.")


class ClippedSpectrum(Projection):
    """Centered and scaled embeddings, in which the variance of dominant directions is clipped.

    In some embeddings a few directions hold nearly all of the variance, whatever the task (the brightness of an image,
    the length of a text), and kernels would depend on those alone. The variances of the support set are clipped at the
    highest level at which their participation ratio, the square of their sum over the sum of their squares, is large
    enough. The mean squared norm of the result is 1.

    Args:
        participation (`float`, *optional*, defaults to 40.0):
            Sufficient participation ratio. A share `EVEN` of the number of directions in which the support set varies
            (at most k - 1) suffices as well.
    """

    def __init__(self, participation: float = 40.0):
        self.participation = participation

    def fit(self, x: Tensor, weights: Tensor | None = None) -> Self:
        """Fit on embeddings (batch, k, dim) with weights (batch, k), in float64 where the device has it."""
        tiny, wide = torch.finfo(torch.float32).tiny, torch.float32 if x.device.type == "mps" else torch.float64
        x = at_least_float32(x)
        count: Any = x.shape[-2]
        mean = x.mean(-2, keepdim=True)
        if weights is not None:
            count = weights.sum(-1, keepdim=True)
            mean = (weights / count)[..., None, :] @ x
        centered = x - mean
        size = centered.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)  # squares would overflow float32
        unit = (centered / size).to(wide)
        if weights is not None:
            unit = unit * weights.sqrt()[..., None]
        variances, vectors = torch.linalg.eigh(unit @ unit.transpose(-1, -2))
        variances, vectors = variances.flip(-1).clamp_min(0), vectors.flip(-1)
        allowed = variances.clamp_max(_level(variances, self.participation))
        most = max(1, int((allowed < variances).sum(-1).max()))
        top = variances[..., :most].clamp_min(tiny)
        directions = (unit.transpose(-1, -2) @ vectors[..., :most]) / top.sqrt()[..., None, :]
        shrinkage = 1 - (allowed[..., :most] / top).sqrt()
        total = allowed.sum(-1, keepdim=True)
        scale = torch.where(total > 0, (count / total.clamp_min(tiny)).sqrt(), 0.0).to(x.dtype)
        self.mean, self.directions, self.shrinkage = mean, directions.to(x.dtype), shrinkage.to(x.dtype)
        self.scale = scale[..., None] / size
        return self

    def transform(self, x: Tensor) -> Tensor:
        """Project embeddings (batch, n, dim) to float32 of the same shape."""
        centered = self._center(x)
        along = (centered @ self.directions) * self.shrinkage[..., None, :]
        return (centered - along @ self.directions.transpose(-1, -2)) * self.scale


def _level(variances: Tensor, participation: float) -> Tensor:
    """Return the level (batch, 1) at which to clip variances (batch, k) in descending order."""
    highest = variances[..., :1]
    varies = variances > NOISE * highest
    enough = (EVEN * varies.sum(-1, keepdim=True)).clamp_max(participation)
    high = highest.clamp_min(torch.finfo(variances.dtype).tiny)
    low = torch.where(varies, variances, high).amin(-1, keepdim=True)
    for _ in range(STEPS):
        middle = (low * high).sqrt()
        is_enough = _participation(variances.clamp_max(middle)) >= enough
        low, high = torch.where(is_enough, middle, low), torch.where(is_enough, high, middle)
    return torch.where(_participation(variances) >= enough, highest, low)


def _participation(variances: Tensor) -> Tensor:
    """Return the participation ratio (batch, 1) of variances (batch, k)."""
    squares = variances.square().sum(-1, keepdim=True)
    return variances.sum(-1, keepdim=True).square() / squares.clamp_min(torch.finfo(variances.dtype).tiny)


@dataclass(frozen=True)
class LayerScaling:
    """Concatenated layers, each centered and scaled on the support set to a mean squared norm of 1.

    The Gram matrix of the result is the sum of the Gram matrices of the layers. Constant layers become 0.
    """

    mean: Tensor  # (layers, hidden)
    scale: Tensor  # (layers, 1), factor of each centered layer

    @classmethod
    def fit(cls, support: Tensor, weights: Tensor | None = None) -> "LayerScaling":
        """Fit on support embeddings (k, layers, hidden), with weights (k,)."""
        support = support.float()

        def mean(x: Tensor) -> Tensor:
            return x.mean(0) if weights is None else torch.tensordot(weights / weights.sum(), x, dims=1)

        size = support.abs().amax(dim=(0, 2), keepdim=True).clamp_min(torch.finfo(support.dtype).tiny)
        unit = support / size  # squares of large activations overflow float32
        spread = mean((unit - mean(unit)).square().sum(-1)).sqrt()
        varies = spread > CONSTANT * mean(unit.square().sum(-1)).sqrt()
        scale = torch.where(varies, 1 / (spread * size[0, :, 0]), 0.0)
        return cls(mean(support), scale[:, None])

    def transform(self, x: Tensor) -> Tensor:
        """Scale embeddings (n, layers, hidden) and concatenate their layers to (n, layers * hidden) float32."""
        return ((x.float() - self.mean) * self.scale).flatten(1)


def scale_views(embeddings: Tensor, scalings: Sequence[LayerScaling]) -> list[Tensor]:
    """Scale embeddings (n, layers of all views, hidden), each view by its scaling.

    Raises:
        ValueError: When they are of other layers or another size than those that the scalings were fitted on.
    """
    counts = [len(scaling.mean) for scaling in scalings]
    expected = (sum(counts), scalings[0].mean.shape[1])
    if embeddings.shape[1:] != expected:
        raise ValueError(
            f"The support set has embeddings of shape {expected} (layers, hidden), the backbone gives "
            f"{tuple(embeddings.shape[1:])}: it was made with another backbone or other views."
        )
    views = embeddings.split(counts, dim=1)
    return [scaling.transform(view) for scaling, view in zip(scalings, views, strict=True)]


PROJECTIONS: dict[str, Callable[[int], Projection]] = {
    "none": lambda n_components: Identity(),
    "clipped": lambda n_components: ClippedSpectrum(),
    "whitened_pca": WhitenedPCA,
}


def fit_projection(name: str, n_components: int, support: Tensor, weights: Tensor | None = None) -> Projection:
    """Fit a projection, given by its name in a config, on embeddings (batch, k, dim) with weights (batch, k)."""
    return PROJECTIONS[name](n_components).fit(support, weights)


__all__ = ["ClippedSpectrum", "Identity", "LayerScaling", "Projection", "WhitenedPCA", "fit_projection", "scale_views"]
