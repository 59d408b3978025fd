"""The scope of a support set: how far an input is from all examples, compared with how far each is from the others."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from transformers_tart.projection import LayerScaling, scale_views
from transformers_tart.support import PreparedSupport


NOISE = 0.1  # in units of the examples' variance; chosen on train rows (hub_cards/evidence/abstain.md)
CONSTANT = 10.0  # a feature, by which the mean of the examples is unknown too: else each would be nearer to its own
MOST = 4096  # examples; of more, every second or third, and so on


@dataclass(frozen=True)
class Scope:
    """Examples with their novelty, to which that of an input is compared.

    The novelty of an input is the variance of a linear Gaussian process there, given the examples: it is large where
    no combination of examples is near. That of an example is given the others, in closed form. No inputs out of scope
    are needed.

    Attributes:
        scalings: scalings of the views.
        features: examples (k, width) of unit mean squared norm beside a constant, float64.
        precision: inverse (k, k) of their Gram matrix with noise.
        novelty: novelty (k,) of the examples, sorted.
    """

    scalings: tuple[LayerScaling, ...]
    features: Tensor
    precision: Tensor
    novelty: Tensor

    @classmethod
    def of(cls, prepared: PreparedSupport) -> Self:
        """Return the scope of a support set."""
        embeddings = prepared.support.embeddings
        chosen = embeddings[:: -(-len(embeddings) // MOST)]
        features = _scale(chosen if chosen.dim() == 3 else chosen[:, None], prepared.scalings)
        gram = features @ features.T
        precision = torch.linalg.inv(gram + NOISE * torch.eye(len(gram), dtype=gram.dtype))
        return cls(prepared.scalings, features, precision, (1 / precision.diagonal()).sort().values)

    def compare(self, embeddings: Tensor) -> Tensor:
        """Return the shares (n,) of examples that are less novel than inputs, from 0 to less than 1.

        Of inputs like the examples, a share of x is more than 1 - x out of scope.

        Args:
            embeddings (`torch.FloatTensor` of shape `(n, layers, hidden)`):
                Embeddings of the inputs.
        """
        inputs = _scale(embeddings, self.scalings)
        gram = inputs @ self.features.T
        novelty = inputs.square().sum(1) + NOISE - ((gram @ self.precision) * gram).sum(1)
        return torch.searchsorted(self.novelty, novelty) / (len(self.novelty) + 1)


def _scale(embeddings: Tensor, scalings: tuple[LayerScaling, ...]) -> Tensor:
    """Return features (n, width), float64 on the CPU, of unit mean squared norm over the examples, and a constant."""
    scaled = scale_views(embeddings.to(scalings[0].mean.device), scalings)
    parts = [view / (len(each.mean) * len(scalings)) ** 0.5 for view, each in zip(scaled, scalings, strict=True)]
    return torch.nn.functional.pad(torch.cat(parts, dim=-1).cpu().double(), (0, 1), value=CONSTANT)


__all__ = ["Scope"]
