"""Storage of support embeddings in float16, and the test that it changes no prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


MOST_CHANGE = 2.5e-4  # of a probability of a probe; predictions of other queries may change a little more
MOST_PROBES = 64  # of each kind
HIGHEST_EXPONENT = 15  # values are below 2 ** 15, float16 ends at 65504
EXPONENTS = 126  # powers of two that are, with their inverses, normal numbers of float32


@dataclass(frozen=True, eq=False)
class PackedEmbeddings:
    """Embeddings in float16, of which each layer is centered and divided by a unit.

    The precision is relative to the deviations from the center, and embeddings of any size fit. Units are powers of
    two, so that unpacking rounds once and gives the same bits on each device.
    """

    values: Tensor  # (k, hidden) or (k, layers, hidden) float16
    center: Tensor  # (hidden,) or (layers, hidden) float32
    unit: Tensor  # (1,) or (layers, 1) float32
    residual: Tensor | None = None  # float16, rounding errors of the values in units; not stored

    def __post_init__(self) -> None:
        shape = self.values.shape[1:]
        if (self.center.shape, self.unit.shape) != (shape, (*shape[:-1], 1)):
            raise ValueError(
                f"The packed embeddings {tuple(self.values.shape)} have a center of shape {tuple(self.center.shape)} "
                f"and units of shape {tuple(self.unit.shape)}; pack the embeddings again."
            )
        if (self.values.dtype, self.center.dtype, self.unit.dtype) != (torch.float16, torch.float32, torch.float32):
            raise ValueError("Packed embeddings must be float16, their center and units float32; pack them again.")

    @classmethod
    def of(cls, embeddings: Tensor) -> "PackedEmbeddings | None":
        """Pack embeddings (k, hidden) or (k, layers, hidden), on the CPU.

        Returns:
            `None` for other dtypes than float32, for embeddings that would not become smaller, and for those so large
            that their sums overflow.
        """
        if embeddings.dtype != torch.float32:
            return None
        embeddings = embeddings.detach().cpu()
        center = embeddings.mean(0)
        deviations = embeddings - center
        largest = deviations.abs().amax((0, -1))[..., None]
        exponents = (torch.frexp(largest).exponent - HIGHEST_EXPONENT).clamp(-EXPONENTS, EXPONENTS)
        unit = torch.ldexp(torch.ones_like(largest), exponents)
        packed = cls((deviations / unit).half(), center, unit)
        packed = replace(packed, residual=((embeddings - packed.unpack()) / unit).half())
        is_usable = packed.num_bytes < embeddings.nbytes and torch.isfinite(packed.unpack()).all()
        return packed if is_usable else None

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "PackedEmbeddings":
        """Build packed embeddings from [`PackedEmbeddings.tensors`]."""
        return cls(*(tensors[f"packed.{name}"] for name in ("values", "center", "unit")))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a safetensors file."""
        return {"packed.values": self.values, "packed.center": self.center, "packed.unit": self.unit}

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def unpack(self) -> Tensor:
        """Return the embeddings in float32, of the shape of `values`."""
        return self.values.float() * self.unit + self.center

    def restore(self) -> Tensor | None:
        """Return the embeddings in float32 before they were rounded, `None` where these are not known."""
        return None if self.residual is None else self.unpack() + self.residual.float() * self.unit

    def append(self, embeddings: Tensor) -> "PackedEmbeddings | None":
        """Return these and more embeddings, around the same center; `None` where the unit is too small for them."""
        values = ((embeddings.detach().float().cpu() - self.center) / self.unit).half()
        appended = replace(self, values=torch.cat([self.values, values]), residual=None)
        return appended if torch.isfinite(values).all() else None

    def take(self, rows: Tensor) -> "PackedEmbeddings":
        """Return the embeddings of some rows."""
        return replace(self, values=self.values[rows.cpu()], residual=None)

    def is_of(self, embeddings: Tensor) -> bool:
        """Return whether embeddings are the unpacked ones."""
        return embeddings.dtype == torch.float32 and torch.equal(self.unpack(), embeddings.detach().cpu())


def draw_probes(embeddings: Tensor) -> Tensor:
    """Return queries (n, ...) by which to compare predictions: some of k embeddings, and means of two of them."""
    size = len(embeddings)
    spaced = torch.linspace(0, size - 1, min(size, MOST_PROBES), dtype=torch.float32)
    rows = spaced.round().long().to(embeddings.device)
    first, second = embeddings[rows], embeddings[(rows + (size + 1) // 2) % size]
    return torch.cat([first, first / 2 + second / 2])


def is_unchanged(logits: Tensor, packed_logits: Tensor, is_alone: bool = False) -> bool:
    """Return whether the probabilities of logits (n, classes), each on its own or not, are nearly the same."""
    own, packed = (each.sigmoid() if is_alone else each.softmax(-1) for each in (logits, packed_logits))
    change = (own - packed).abs().max()
    return bool(change <= MOST_CHANGE)  # not for NaN


__all__ = ["PackedEmbeddings", "draw_probes", "is_unchanged"]
