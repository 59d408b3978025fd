"""Centers and scales of label hints, whose scores may have any unit and favor some classes."""

from dataclasses import dataclass

import torch
from torch import Tensor


LEAST_SCALE = 1e-6  # in units of the largest score; a smaller spread is rounding
LEAST_WEIGHT = 1e-9
UNCENTERED_ROWS = 4  # weight of the uncentered spread, in rows; the centered spread of a single row is 0
FARTHEST = 30.0  # limit of scaled hints


@dataclass(frozen=True)
class HintScaling:
    """Center and scale of H hints for C classes, in B tasks."""

    unit: Tensor  # (B, H) largest absolute score, divided out first; 1 where no row is known
    center: Tensor  # (B, H, C) mean of each class; 0 where no row is known
    scale: Tensor  # (B, H) spread within a row; 0 where no row is known, and each row is scaled by its own
    missing: Tensor  # (B, H, C) bool; the classes of which a hint says nothing
    error: Tensor  # (B, H) squared standard error of the center, in units of the scale

    @classmethod
    def fit(cls, hints: Tensor, members: Tensor, unlabeled: Tensor) -> "HintScaling":
        """Fit to hints (B, k, H, C) of examples of weighted one-hot labels (B, k, C), and (B, m, H, C) of others.

        The examples of each class have the same weight together, so that the center holds no class frequency. Any of k
        and m may be 0.
        """
        known = torch.cat([hints, unlabeled], dim=1)
        has_rows = known.shape[1] > 0
        missing = known.isnan().all(1) & has_rows
        unit = _largest(known).amax(1) if has_rows else known.new_ones(known.shape[0], known.shape[2])
        rows, _ = _center_rows(known / unit[:, None, :, None], missing)
        of_unlabeled = members.new_ones(unlabeled.shape[:2])
        weight = torch.cat([_balance(members), of_unlabeled], dim=1)
        squares = weight.square() / torch.cat([members.sum(-1), of_unlabeled], dim=1)  # of copies, as a weight counts
        count = weight.sum(1)[:, None].square() / squares.sum(1)[:, None].clamp_min(LEAST_WEIGHT)  # effective
        center = torch.einsum("bk,bkhc->bhc", weight, rows) / weight.sum(1)[:, None, None].clamp_min(LEAST_WEIGHT)
        centered, uncentered = _spread(rows - center[:, None], weight, missing), _spread(rows, weight, missing)
        variance = (count * centered + UNCENTERED_ROWS * uncentered) / (count + UNCENTERED_ROWS)
        scale = variance.sqrt()
        if has_rows:  # a hint that scores all classes alike says nothing
            missing = missing | (scale <= LEAST_SCALE)[..., None]
        scale = torch.where(scale > LEAST_SCALE, scale, 0.0)
        error = torch.where(scale > 0, centered / variance.clamp_min(LEAST_SCALE**2), 1.0) / count.clamp_min(1.0)
        return cls(unit, center, scale, missing, error)

    def transform(self, hints: Tensor, shrinkage: Tensor) -> Tensor:
        """Center hints (B, n, H, C) by a share (B, H) of their centers, and scale them; 0 where they are missing."""
        is_known = (self.scale > 0)[:, None, :, None]
        unit = torch.where(is_known, self.unit[:, None, :, None], _largest(hints)[..., None])
        rows, present = _center_rows(hints / unit, self.missing)
        rows = (rows - (shrinkage[..., None] * self.center)[:, None]) * present
        own = rows.square().mean(-1, keepdim=True).sqrt()
        own = torch.where(own > LEAST_SCALE, own, torch.inf)
        scale = torch.where(is_known, self.scale[:, None, :, None], own)
        return (rows / scale).clamp(-FARTHEST, FARTHEST)

    @property
    def bias(self) -> Tensor:
        """Mean square (B, H) of the centers, in units of the scale."""
        return self.center.square().mean(-1) / self.scale.square().clamp_min(LEAST_SCALE**2)


def _center_rows(hints: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (B, n, H, C) less their means over the classes that are there, 0 elsewhere, and 1 where they are."""
    present = (~(missing[:, None] | hints.isnan())).to(hints.dtype)
    filled = torch.where(present > 0, hints, 0.0)
    mean = filled.sum(-1, keepdim=True) / present.sum(-1, keepdim=True).clamp_min(1)
    return (filled - mean) * present, present


def _largest(hints: Tensor) -> Tensor:
    """Return the largest absolute score (B, n, H) of each row (B, n, H, C), at least a tiny number."""
    return hints.nan_to_num().abs().amax(-1).clamp_min(torch.finfo(hints.dtype).tiny)


def _balance(members: Tensor) -> Tensor:
    """Return weights (B, k) of examples with weighted one-hot labels (B, k, C), alike for each class, k in sum."""
    counts = members.sum(1)
    weight = (members / torch.where(counts > 0, counts, 1.0)[:, None]).sum(-1)
    return weight * counts.sum(-1, keepdim=True) / (counts > 0).sum(-1, keepdim=True).clamp_min(1)


def _spread(rows: Tensor, weight: Tensor, missing: Tensor) -> Tensor:
    """Return the weighted mean square (B, H) of rows (B, n, H, C) over the classes that are not missing."""
    classes = (~missing).to(rows.dtype).sum(-1).clamp_min(1)
    squares = torch.einsum("bk,bkhc->bh", weight, rows.square()) / classes
    return squares / weight.sum(1)[:, None].clamp_min(LEAST_WEIGHT)
