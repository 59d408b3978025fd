"""Projections from embeddings to what a reasoner reads, fitted on the support set alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Projection(Protocol):
    """A fitted map of embeddings (..., n, dim) to reasoner inputs (..., n, m)."""

    def transform(self, x: Tensor) -> Tensor:
        """Project embeddings."""

    def to(self, device: torch.device | str) -> "Projection":
        """The same projection on another device."""


@dataclass(frozen=True)
class Identity:
    """The reasoner reads the embeddings themselves."""

    def fit(self, x: Tensor) -> "Identity":
        """Return itself: there is nothing to fit."""
        return self

    def transform(self, x: Tensor) -> Tensor:
        """Return `x`."""
        return x

    def to(self, device: torch.device | str) -> "Identity":
        """Return itself: there is nothing to move."""
        return self


class WhitenedPCA:
    """The first principal components, each scaled to unit variance over the support set (arXiv 2306.07536, section 4).

    Directions in which the support set does not vary are left at zero instead of being divided by zero, so with k at
    or under `n_components` there are fewer components, padded with zeros. Signs are fixed as scikit-learn fixes
    them: the largest loading of each component is positive.

    Args:
        n_components (`int`):
            Number of output dimensions.
    """

    def __init__(self, n_components: int):
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1, got {n_components}.")
        self.n_components = n_components
        self.mean: Tensor | None = None
        self.components: Tensor | None = None

    def fit(self, x: Tensor) -> "WhitenedPCA":
        """Fit on embeddings of shape (..., k, dim), k at least 2; computed in float32."""
        if x.dim() < 2 or x.shape[-2] < 2:
            raise ValueError(f"WhitenedPCA needs at least two embeddings, (..., k, dim); got shape {tuple(x.shape)}.")
        x = x.float()
        mean = x.mean(-2, keepdim=True)
        _, singular, rows = torch.linalg.svd(x - mean, full_matrices=False)
        count = min(self.n_components, singular.shape[-1])
        singular, rows = singular[..., :count], rows[..., :count, :]
        strongest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
        rows = rows * torch.where(strongest < 0, -1.0, 1.0)
        # of the decomposition, and of the centring
        size = torch.maximum(singular[..., :1] * max(x.shape[-2:]), x.abs().amax((-2, -1))[..., None])
        noise = size * torch.finfo(x.dtype).eps
        factor = torch.where(singular > noise, (x.shape[-2] - 1) ** 0.5 / singular.clamp_min(1e-38), 0.0)
        components = (rows * factor[..., None]).transpose(-1, -2)
        padding = (0, self.n_components - count)
        return self._with(mean, torch.nn.functional.pad(components, padding))

    def transform(self, x: Tensor) -> Tensor:
        """Project embeddings (..., n, dim) to (..., n, n_components) float32."""
        if self.mean is None or self.components is None:
            raise ValueError("This WhitenedPCA is not fitted; call fit(support_embeddings) first.")
        if x.shape[-1] != self.mean.shape[-1]:
            raise ValueError(f"WhitenedPCA was fitted on {self.mean.shape[-1]} dimensions, these have {x.shape[-1]}.")
        return (x.float() - self.mean) @ self.components

    def to(self, device: torch.device | str) -> "WhitenedPCA":
        """The same fitted projection on another device."""
        if self.mean is None or self.components is None:
            return WhitenedPCA(self.n_components)
        return WhitenedPCA(self.n_components)._with(self.mean.to(device), self.components.to(device))

    def _with(self, mean: Tensor, components: Tensor) -> "WhitenedPCA":
        self.mean, self.components = mean, components
        return self


class ClippedSpectrum:
    """Keeps any one direction from drowning the others: none has more than a share of the variance.

    Of embeddings in which a few directions hold nearly all of the variance, whatever the task (the brightness of an
    image, the length of a text), kernels see those alone. Principal components of the support set above the share are
    shrunk to it, and everything is centred and scaled to a mean squared norm of 1. Where there is no such direction,
    and that is so of most embeddings, only the centre and the scale change.

    Args:
        share (`float`, *optional*, defaults to 0.04):
            Largest share of the variance that a direction may have; where the support set varies in few directions,
            `FEWEST` times that of even ones.
    """

    def __init__(self, share: float = 0.04):
        self.share = share
        self.mean: Tensor | None = None
        self.directions: Tensor | None = None
        self.shrinkage: Tensor | None = None
        self.scale: Tensor | None = None

    def fit(self, x: Tensor) -> "ClippedSpectrum":
        """Fit on embeddings of shape (batch, k, dim); computed in float64, where the device has it."""
        tiny, wide = torch.finfo(torch.float32).tiny, torch.float32 if x.device.type == "mps" else torch.float64
        mean = x.float().mean(-2, keepdim=True)
        centred = x.float() - mean
        size = centred.abs().amax((-2, -1), keepdim=True).clamp_min(tiny)  # squares would leave the range of float32
        unit = (centred / size).to(wide)
        variances, vectors = torch.linalg.eigh(unit @ unit.transpose(-1, -2))
        variances, vectors = variances.flip(-1).clamp_min(0), vectors.flip(-1)
        allowed = torch.stack([_clip(each, self.share) for each in variances])
        count = max(1, int((allowed < variances).sum(-1).max()))
        top = variances[..., :count].clamp_min(tiny)
        directions = (unit.transpose(-1, -2) @ vectors[..., :count]) / top.sqrt()[..., None, :]
        shrinkage = 1 - (allowed[..., :count] / top).sqrt()
        total = allowed.sum(-1)
        scale = torch.where(total > 0, (x.shape[-2] / total.clamp_min(tiny)).sqrt(), 0.0).float()
        return self._with(mean, directions.float(), shrinkage.float(), scale[..., None, None] / size)

    def transform(self, x: Tensor) -> Tensor:
        """Shrink embeddings (batch, n, dim), to float32."""
        if self.mean is None or self.directions is None or self.shrinkage is None or self.scale is None:
            raise ValueError("This ClippedSpectrum is not fitted; call fit(support_embeddings) first.")
        if x.shape[-1] != self.mean.shape[-1]:
            raise ValueError(
                f"ClippedSpectrum was fitted on {self.mean.shape[-1]} dimensions, these have {x.shape[-1]}."
            )
        centred = x.float() - self.mean
        along = (centred @ self.directions) * self.shrinkage[..., None, :]
        return (centred - along @ self.directions.transpose(-1, -2)) * self.scale

    def to(self, device: torch.device | str) -> "ClippedSpectrum":
        """The same fitted projection on another device."""
        parts = (self.mean, self.directions, self.shrinkage, self.scale)
        return ClippedSpectrum(self.share)._with(*(None if part is None else part.to(device) for part in parts))

    def _with(
        self, mean: Tensor | None, directions: Tensor | None, shrinkage: Tensor | None, scale: Tensor | None
    ) -> "ClippedSpectrum":
        self.mean, self.directions, self.shrinkage, self.scale = mean, directions, shrinkage, scale
        return self


FEWEST = 2.0
NOISE = 1e-9  # of the largest variance: directions with less carry rounding errors only


def _clip(variances: Tensor, share: float) -> Tensor:
    """Variances (k,), from the largest, none above a share of the sum of what comes out."""
    share = max(share, FEWEST / max(1, int((variances > NOISE * variances[0]).sum())))
    remaining = variances.flip(0).cumsum(0).flip(0)  # of each and all that are smaller
    for count, variance in enumerate(variances):
        if share * count >= 1:
            break
        # so many directions at the limit, and the others as they are
        limit = share * remaining[count] / (1 - share * count)
        if variance <= limit:
            return variances.clamp_max(limit)
    return variances


# A layer whose spread over the support set is below this share of its size carries rounding errors only.
CONSTANT = 1e-6


@dataclass(frozen=True)
class LayerScaling:
    """Puts layers side by side, each centred and scaled by the support set to a mean squared norm of 1.

    The Gram matrix of the result is the sum of those of the layers. A layer that does not vary counts for nothing.

    Attributes:
        mean: (layers, hidden).
        scale: (layers, 1), what a centred layer is multiplied by.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, support: Tensor) -> "LayerScaling":
        """Fit on support embeddings (k, layers, hidden)."""
        support = support.float()
        size = support.abs().amax(dim=(0, 2), keepdim=True).clamp_min(torch.finfo(support.dtype).tiny)
        unit = support / size  # squares of large activations leave the range of float32
        spread = (unit - unit.mean(0)).square().sum(-1).mean(0).sqrt()
        varies = spread > CONSTANT * unit.square().sum(-1).mean(0).sqrt()
        scale = torch.where(varies, 1 / (spread * size[0, :, 0]), 0.0)
        return cls(support.mean(0), scale[:, None])

    def transform(self, x: Tensor) -> Tensor:
        """(n, layers, hidden) -> (n, layers * hidden) float32."""
        return ((x.float() - self.mean) * self.scale).flatten(1)


PROJECTIONS: dict[str, Callable[[int], Any]] = {
    "none": lambda n_components: Identity(),
    "clipped": lambda n_components: ClippedSpectrum(),
    "whitened_pca": WhitenedPCA,
}


def fit_projection(name: str, n_components: int, support: Tensor) -> Projection:
    """Fit the projection that a reasoner's config names on support embeddings (batch, k, dim)."""
    return PROJECTIONS[name](n_components).fit(support)


__all__ = ["ClippedSpectrum", "Identity", "LayerScaling", "Projection", "WhitenedPCA", "fit_projection"]
