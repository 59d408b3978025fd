"""The linear algebra of the `kernel` architecture: Gram matrices of a support set, and their ridge smoothers.

Nothing here is learned. All computations are in float32, under autocast too, or in float64 where embeddings are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from transformers_tart.checks.tensors import at_least_float32
from transformers_tart.reasoners.architectures.rows import PLAIN, Rows, over


FARTHEST = 1e3  # limit of query coordinates, in standard deviations of the support; fits half precision
ALONE = 1e-6  # share of the weight of all examples below which others than the copies of a row are none

F = TypeVar("F", bound=Callable[..., Any])


def in_float32(function: F) -> F:
    """Switch autocast off inside a function, for the device of its first tensor argument."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kind = next(arg.device.type for arg in args if hasattr(arg, "device"))
        if not torch.is_autocast_enabled(kind):  # an exported program would hold each region as a graph of its own
            return function(*args, **kwargs)
        with torch.autocast(kind, enabled=False):
            return function(*args, **kwargs)

    return wrapped  # type: ignore[return-value]


@dataclass(frozen=True)
class Geometry:
    """The k examples of each of B support sets, in units in which their mean squared norm is 1."""

    support: Tensor  # (B, k, dim) centered and scaled embeddings
    center: Tensor  # (B, 1, dim) mean of the embeddings, in units of `unit`
    unit: Tensor  # (B, 1, 1) largest absolute entry of the support, divided out first so that squares do not overflow
    scale: Tensor  # (B, 1, 1) root mean squared norm of the centered support, in units of `unit`
    rows: Rows = PLAIN  # weights of the examples

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.support.device

    @classmethod
    def of(cls, embeddings: Tensor, rows: Rows = PLAIN) -> "Geometry":
        """Center and scale support embeddings (B, k, dim) float32 or float64 without overflow."""
        unit = embeddings.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(embeddings.dtype).tiny)
        embeddings = embeddings / unit
        center = rows.mean(embeddings)
        centered = embeddings - center
        scale = rows.mean(centered.square().sum(-1))[:, :, None].sqrt()
        # a spread below rounding errors is none; dividing by it would make queries overflow
        rounding = torch.finfo(scale.dtype).eps * embeddings.shape[-1] ** 0.5
        scale = torch.where(scale > rounding, scale, 1.0)
        return cls(centered / scale, center, unit, scale, rows)

    def locate(self, embeddings: Tensor) -> Tensor:
        """Center and scale query embeddings (B, n, dim), and move far outliers inward along their direction."""
        if embeddings.shape[-1] != self.support.shape[-1]:
            raise ValueError(
                f"The queries have {embeddings.shape[-1]} dimensions, the support set has {self.support.shape[-1]}: "
                "embed both in the same way."
            )
        located = (at_least_float32(embeddings) / self.unit - self.center) / self.scale
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
        means = geometry.rows.mean(gram)
        centered = gram - means - means.transpose(1, 2) + geometry.rows.mean_of_columns(means)
        scale = geometry.rows.mean(centered.diagonal(dim1=1, dim2=2))[:, :, None]
        scale = torch.where(scale > torch.finfo(scale.dtype).eps * gram.shape[-1], scale, 1.0)
        return cls(sharpness, means, scale), centered / scale

    @in_float32
    def __call__(self, located: Tensor, geometry: Geometry, distances: Tensor) -> Tensor:
        """Return the kernel (B, n, k) between located examples (B, n, dim) and the support, given half distances."""
        if self.means is None or self.scale is None:
            return located @ geometry.support.transpose(1, 2)
        gram = torch.exp(-self.sharpness * distances)
        mean = geometry.rows.mean_of_columns
        return (gram - mean(gram) - self.means + mean(self.means)) / self.scale


@in_float32
def ridge_inverse(gram: Tensor, strength: float, rows: Rows = PLAIN) -> Tensor:
    """Return (K + strength * sqrt(k) * I)^-1 of (B, k, k); the best ridge grows with k about as its root does.

    With weights W, k is their sum and the identity is W^-1: a weight of 2 is two copies of a row.
    """
    eye = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    if rows.weights is not None:
        eye = torch.diag_embed(1 / rows.weights)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + _ridge(strength, rows.total(gram.shape[-1])) * eye))


def _ridge(strength: float, size: int | Tensor) -> Any:
    """Return the ridge of support sets of a size, a number or (B, 1, 1)."""
    return strength * (size.sqrt()[:, None, None] if isinstance(size, Tensor) else math.sqrt(size))


@in_float32
def apply(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply (B, n, k) by (B, k, ...) to (B, n, ...) in float32."""
    return (matrix @ at_least_float32(values).flatten(2)).view(*matrix.shape[:2], *values.shape[2:])


def hold_out(product: Tensor, values: Tensor, inverse: Tensor, rows: Rows = PLAIN) -> Tensor:
    """Return leave-one-out ridge predictions (B, k, ...), of which row i is fitted without example i and its copies.

    With M the inverse and `product` M v, they are -sum_j M_ij v_j / M_ii over j != i, that is v_i - (M v)_i / M_ii. Of
    copies, which have one prediction, v is the mean, M v the sum, and M_ii the sum of their block of M.
    """
    spread = over(rows.block_sums(inverse), values)
    return rows.mean_of_copies(at_least_float32(values)) - rows.sum_of_copies(product) / spread


def hold_out_centered(product: Tensor, values: Tensor, inverse: Tensor, ridge: Any, rows: Rows = PLAIN) -> Tensor:
    """Return leave-one-out predictions (B, k, ...), as deviations from the mean of the other rows, of centered values.

    The kernel and the values are centered by means that hold the row i itself, which `hold_out` leaves in: of
    unrelated rows it then predicts the label that each has. Here the mean is part of the fit, an intercept without
    penalty, so the hat matrix is 1/k + K M, and the residual without row i is (v - K M v)_i / (1 - 1/k - (K M)_ii).
    Of m copies, 1/k is m/k.
    """
    size, mass = rows.total(values.shape[1]), rows.mass_of_copies()
    if isinstance(mass, Tensor):
        size = over(rows.total_of(mass), values)
        blocks = over(rows.block_sums(inverse), values)
        mass, ridge = over(mass, values), over(ridge, values) if isinstance(ridge, Tensor) else ridge
        has_others = size - mass > ALONE * size  # without them, the prediction is their mean
        rest, spread = torch.where(has_others, size - mass, 1.0), blocks - mass * mass / (size * ridge)
        residual = rows.sum_of_copies(product) / torch.where(has_others, spread, 1.0)
        return torch.where(has_others, rows.mean_of_copies(at_least_float32(values)) * (size / rest) - residual, 0.0)
    spread = inverse.diagonal(dim1=1, dim2=2) - 1 / (size * ridge)
    return at_least_float32(values) * (size / (size - 1)) - product / over(spread, values)


@dataclass(frozen=True)
class Smoothers:
    """The A ridge smoothers of a support set, one for each pair of kernel and strength, sorted by kernel first."""

    kernels: tuple[Kernel, ...]
    inverses: tuple[Tensor, ...]
    strengths: tuple[float, ...]  # of each kernel
    rows: Rows = PLAIN  # weights and copies of the examples

    @classmethod
    def fit(
        cls,
        geometry: Geometry,
        distances: Tensor,
        sharpness: Sequence[float],
        strengths: Sequence[float],
        rows: Rows = PLAIN,
    ) -> "Smoothers":
        """Fit the smoothers, given the half squared distances (B, k, k) of the support."""
        fitted = [Kernel.fit(value, geometry, distances) for value in sharpness]
        inverses = tuple(ridge_inverse(gram, strength, rows) for _, gram in fitted for strength in strengths)
        return cls(tuple(kernel for kernel, _ in fitted), inverses, tuple(strengths), rows)

    def solve(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (B, k, A, ...) times the inverses, for queries, and their leave-one-out predictions."""
        products = [apply(inverse, values[:, :, i]) for i, inverse in enumerate(self.inverses)]
        held_out = [hold_out(p, values[:, :, i], self.inverses[i], self.rows) for i, p in enumerate(products)]
        return torch.stack(products, 2), torch.stack(held_out, 2)

    def solve_centered(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return centered values (B, k, A, ...) times the inverses, and leave-one-out predictions with means left out.

        Without its own example a row is predicted as a deviation from the mean of the others.
        """
        products, held_out = [], []
        for i, inverse in enumerate(self.inverses):
            product = apply(inverse, values[:, :, i])
            ridge = _ridge(self.strengths[i % len(self.strengths)], self.rows.total(values.shape[1]))
            products.append(product)
            held_out.append(hold_out_centered(product, values[:, :, i], inverse, ridge, self.rows))
        return torch.stack(products, 2), torch.stack(held_out, 2)


def smooth(grams: Sequence[Tensor], solved: Tensor) -> Tensor:
    """Return predictions (B, n, A, ...) of queries: their kernels (B, n, k) times the first result of `solve`."""
    each = solved.shape[2] // len(grams)
    return torch.cat([apply(gram, solved[:, :, i * each : (i + 1) * each]) for i, gram in enumerate(grams)], 2)
