"""The linear algebra of the `kernel` architecture: Gram matrices of a support set, and ridge smoothers of them.

Nothing here is learned, and everything is computed in float32, under autocast too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor


FARTHEST = 1e3  # a query is drawn in to this many standard deviations of the support; half precision holds that

F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """Switch autocast off inside a function whose first tensor argument says the device."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        device = next(arg.device for arg in args if isinstance(arg, Tensor | Geometry))
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Geometry:
    """Where the k examples of each of B support sets lie, in units in which their mean squared norm is 1.

    Attributes:
        support: (B, k, dim) centered and scaled embeddings.
        center: (B, 1, dim) their mean before, in units of `unit`.
        unit: (B, 1, 1) largest absolute entry of the support, taken out first so that squares stay in range.
        scale: (B, 1, 1) root mean squared norm of the centered support, in units of `unit`.
    """

    support: Tensor
    center: Tensor
    unit: Tensor
    scale: Tensor

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.support.device

    @classmethod
    def of(cls, embeddings: Tensor) -> "Geometry":
        """Center and scale support embeddings (B, k, dim) float32, without leaving the range of float32."""
        unit = embeddings.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(embeddings.dtype).tiny)
        embeddings = embeddings / unit
        center = embeddings.mean(1, keepdim=True)
        centered = embeddings - center
        scale = centered.square().sum(-1).mean(1)[:, None, None].sqrt()
        # what varies by less than rounding is constant; dividing by it would throw the queries out of range
        rounding = torch.finfo(scale.dtype).eps * embeddings.shape[-1] ** 0.5
        scale = torch.where(scale > rounding, scale, 1.0)
        return cls(centered / scale, center, unit, scale)

    def locate(self, embeddings: Tensor) -> Tensor:
        """Query embeddings (B, n, dim) in the same units; those absurdly far out are drawn in along their direction.

        Raises:
            ValueError: When they are of another width than the support.
        """
        if embeddings.shape[-1] != self.support.shape[-1]:
            raise ValueError(
                f"The queries have {embeddings.shape[-1]} dimensions, the support set has {self.support.shape[-1]}: "
                "embed both in the same way."
            )
        located = (embeddings.float() / self.unit - self.center) / self.scale
        # squares of what lies that far out leave the range of float32; its direction is all that counts by then
        located = located.clamp(-1e30, 1e30)
        return located * (FARTHEST / located.abs().amax(-1, keepdim=True).clamp_min(FARTHEST))


@in_float32
def half_squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared distances (B, n, k) of rows a (B, n, dim) and b (B, k, dim)."""
    norms = a.square().sum(-1)[:, :, None] + b.square().sum(-1)[:, None]
    return (norms / 2 - a @ b.transpose(1, 2)).clamp_min(0)


@dataclass(frozen=True)
class Kernel:
    """A kernel between examples, centered and scaled by the support set as its embeddings are.

    exp(-sharpness * half the squared distance); its limit at sharpness 0, centered and scaled, is the inner product.

    Attributes:
        sharpness: how fast similarity falls with distance, in the units of [`Geometry`].
        means: (B, 1, k) column means over the support, `None` for inner products, which are centered as they are.
        scale: (B, 1, 1) mean of the centered diagonal, `None` likewise.
    """

    sharpness: float
    means: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def fit(cls, sharpness: float, geometry: Geometry, distances: Tensor) -> tuple["Kernel", Tensor]:
        """The kernel and its Gram matrix (B, k, k) on the support."""
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
        """Kernel (B, n, k) of located examples (B, n, dim) and the support, given their half squared distances."""
        if self.means is None or self.scale is None:
            return located @ geometry.support.transpose(1, 2)
        gram = torch.exp(-self.sharpness * distances)
        return (gram - gram.mean(2, keepdim=True) - self.means + self.means.mean(2, keepdim=True)) / self.scale


@in_float32
def ridge_inverse(gram: Tensor, strength: float) -> Tensor:
    """(K + strength * sqrt(k) * I)^-1 of (B, k, k).

    What suits a task grows with k, about as fast as its root: signals that no single example shows come into reach.
    """
    size = gram.shape[-1]
    eye = torch.eye(size, device=gram.device, dtype=gram.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + strength * math.sqrt(size) * eye))


@in_float32
def apply(matrix: Tensor, values: Tensor) -> Tensor:
    """(B, n, k) times (B, k, ...) -> (B, n, ...), in float32."""
    return (matrix @ values.float().flatten(2)).view(*matrix.shape[:2], *values.shape[2:])


def hold_out(product: Tensor, values: Tensor, inverse: Tensor) -> Tensor:
    """Leave-one-out ridge predictions (B, k, ...): row i is fitted without example i.

    With M the inverse and `product` M v, they are -sum_j M_ij v_j / M_ii over j != i, that is v_i - (M v)_i / M_ii.
    """
    diagonal = inverse.diagonal(dim1=1, dim2=2)
    return values.float() - product / diagonal.view(*diagonal.shape, *[1] * (values.dim() - 2))


@dataclass(frozen=True)
class Smoothers:
    """The ridge smoothers of a support set: every kernel with every strength, A of them, strengths within kernels."""

    kernels: tuple[Kernel, ...]
    inverses: tuple[Tensor, ...]

    @classmethod
    def fit(
        cls, geometry: Geometry, distances: Tensor, sharpness: Sequence[float], strengths: Sequence[float]
    ) -> "Smoothers":
        """From the half squared distances (B, k, k) of the support."""
        fitted = [Kernel.fit(value, geometry, distances) for value in sharpness]
        inverses = tuple(ridge_inverse(gram, strength) for _, gram in fitted for strength in strengths)
        return cls(tuple(kernel for kernel, _ in fitted), inverses)

    def solve(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What queries need of values, and what the examples themselves may see of them.

        Args:
            values (`torch.FloatTensor` of shape `(B, k, A, ...)`):
                One value for each smoother.

        Returns:
            `tuple[torch.FloatTensor, torch.FloatTensor]`: values times each inverse, and leave-one-out predictions,
            both of the shape of `values`.
        """
        products = [apply(inverse, values[:, :, i]) for i, inverse in enumerate(self.inverses)]
        held_out = [hold_out(p, values[:, :, i], self.inverses[i]) for i, p in enumerate(products)]
        return torch.stack(products, 2), torch.stack(held_out, 2)


def smooth(grams: Sequence[Tensor], solved: Tensor) -> Tensor:
    """Predictions (B, n, A, ...) of queries: their kernels (B, n, k), one for each sharpness, times `solved`.

    `solved` (B, k, A, ...) is the first result of [`Smoothers.solve`].
    """
    each = solved.shape[2] // len(grams)
    return torch.cat([apply(gram, solved[:, :, i * each : (i + 1) * each]) for i, gram in enumerate(grams)], 2)


def moved(state: Any, device: torch.device | str) -> Any:
    """A frozen dataclass of tensors, numbers, tuples and further such dataclasses, on another device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, tuple):
        return tuple(moved(value, device) for value in state)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: moved(getattr(state, f.name), device) for f in fields(state)})
    return state


__all__ = ["FARTHEST", "Geometry", "Kernel", "Smoothers", "half_squared_distances", "in_float32", "moved", "smooth"]
