"""The linear algebra of the `kernel` architecture: Gram matrices of a support set, and their ridge smoothers.

Nothing here is learned. All computations are in float32, under autocast too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor


FARTHEST = 1e3  # limit of query coordinates, in standard deviations of the support; fits half precision

F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """Switch autocast off inside a function, for the device of its first tensor argument."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = next(arg.device for arg in args if hasattr(arg, "device"))
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Geometry:
    """The k examples of each of B support sets, in units in which their mean squared norm is 1."""

    support: Tensor  # (B, k, dim) centered and scaled embeddings
    center: Tensor  # (B, 1, dim) mean of the embeddings, in units of `unit`
    unit: Tensor  # (B, 1, 1) largest absolute entry of the support, divided out first so that squares do not overflow
    scale: Tensor  # (B, 1, 1) root mean squared norm of the centered support, in units of `unit`

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.support.device

    @classmethod
    def of(cls, embeddings: Tensor) -> "Geometry":
        """Center and scale support embeddings (B, k, dim) float32 without overflow."""
        unit = embeddings.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(embeddings.dtype).tiny)
        embeddings = embeddings / unit
        center = embeddings.mean(1, keepdim=True)
        centered = embeddings - center
        scale = centered.square().sum(-1).mean(1)[:, None, None].sqrt()
        # a spread below rounding errors is none; dividing by it would make queries overflow
        rounding = torch.finfo(scale.dtype).eps * embeddings.shape[-1] ** 0.5
        scale = torch.where(scale > rounding, scale, 1.0)
        return cls(centered / scale, center, unit, scale)

    def locate(self, embeddings: Tensor) -> Tensor:
        """Center and scale query embeddings (B, n, dim), and move far outliers inward along their direction."""
        if embeddings.shape[-1] != self.support.shape[-1]:
            raise ValueError(
                f"The queries have {embeddings.shape[-1]} dimensions, the support set has {self.support.shape[-1]}: "
                "embed both in the same way."
            )
        located = (embeddings.float() / self.unit - self.center) / self.scale
        # squares of larger coordinates overflow float32, and only the direction of such outliers matters
        located = located.clamp(-1e30, 1e30)
        return located * (FARTHEST / located.abs().amax(-1, keepdim=True).clamp_min(FARTHEST))


@in_float32
def half_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return half the squared distances (B, n, k) between rows a (B, n, dim) and b (B, k, dim)."""
    norms = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None]
    return (norms / 2 - a @ b.transpose(1, 2)).clamp_min(0)


@dataclass(frozen=True)
class Kernel:
    """The kernel exp(-sharpness * half the squared distance), centered and scaled on the support set.

    At sharpness 0 it is its limit, the inner product.
    """

    sharpness: float  # rate at which similarity falls with distance, in the units of `Geometry`
    means: Tensor | None = None  # (B, 1, k) of columns; `None` for inner products, which are centered already
    scale: Tensor | None = None  # (B, 1, 1) mean of the centered diagonal; `None` for them too

    @classmethod
    def fit(cls, sharpness: float, geometry: Geometry, distances: Tensor) -> tuple["Kernel", Tensor]:
        """Return the kernel and its Gram matrix (B, k, k) on the support."""
        if sharpness == 0:
            kernel = cls(sharpness)
            return kernel, kernel(geometry.support, geometry, distances)
        gram = torch.exp(-sharpness * distances)
        means = gram.mean(1, keepdim=True)
        centered = gram - means - means.transpose(1, 2) + means.mean(2, keepdim=True)
        scale = centered.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        scale = torch.where(scale > torch.finfo(scale.dtype).eps * gram.shape[-1], scale, 1.0)
        return cls(sharpness, means, scale), centered / scale

    @in_float32
    def __call__(self, located: Tensor, geometry: Geometry, distances: Tensor) -> Tensor:
        """Return the kernel (B, n, k) between located examples (B, n, dim) and the support, given half distances."""
        if self.means is None or self.scale is None:
            return located @ geometry.support.transpose(1, 2)
        gram = torch.exp(-self.sharpness * distances)
        return (gram - gram.mean(2, keepdim=True) - self.means + self.means.mean(2, keepdim=True)) / self.scale


@in_float32
def ridge_inverse(gram: Tensor, strength: float) -> Tensor:
    """Return (K + strength * sqrt(k) * I)^-1 of (B, k, k); the best ridge grows with k about as its root does."""
    size = gram.shape[-1]
    eye = torch.eye(size, device=gram.device, dtype=gram.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + strength * math.sqrt(size) * eye))


@in_float32
def apply(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply (B, n, k) by (B, k, ...) to (B, n, ...) in float32."""
    return (matrix @ values.float().flatten(2)).view(*matrix.shape[:2], *values.shape[2:])


def hold_out(product: Tensor, values: Tensor, inverse: Tensor) -> Tensor:
    """Return leave-one-out ridge predictions (B, k, ...), of which row i is fitted without example i.

    With M the inverse and `product` M v, they are -sum_j M_ij v_j / M_ii over j != i, that is v_i - (M v)_i / M_ii.
    """
    diagonal = inverse.diagonal(dim1=1, dim2=2)
    return values.float() - product / diagonal.view(*diagonal.shape, *[1] * (values.dim() - 2))


@dataclass(frozen=True)
class Smoothers:
    """The A ridge smoothers of a support set, one for each pair of kernel and strength, sorted by kernel first."""

    kernels: tuple[Kernel, ...]
    inverses: tuple[Tensor, ...]

    @classmethod
    def fit(
        cls, geometry: Geometry, distances: Tensor, sharpness: Sequence[float], strengths: Sequence[float]
    ) -> "Smoothers":
        """Fit the smoothers, given the half squared distances (B, k, k) of the support."""
        fitted = [Kernel.fit(value, geometry, distances) for value in sharpness]
        inverses = tuple(ridge_inverse(gram, strength) for _, gram in fitted for strength in strengths)
        return cls(tuple(kernel for kernel, _ in fitted), inverses)

    def solve(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (B, k, A, ...) times the inverses, for queries, and their leave-one-out predictions."""
        products = [apply(inverse, values[:, :, i]) for i, inverse in enumerate(self.inverses)]
        held_out = [hold_out(p, values[:, :, i], self.inverses[i]) for i, p in enumerate(products)]
        return torch.stack(products, 2), torch.stack(held_out, 2)


def smooth(grams: Sequence[Tensor], solved: Tensor) -> Tensor:
    """Return predictions (B, n, A, ...) of queries: their kernels (B, n, k) times the first result of `solve`."""
    each = solved.shape[2] // len(grams)
    return torch.cat([apply(gram, solved[:, :, i * each : (i + 1) * each]) for i, gram in enumerate(grams)], 2)
