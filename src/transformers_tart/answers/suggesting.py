"""Suggestions of inputs to label next: uncertain ones that many others are like, and no example is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.views import View
from transformers_tart.projection import LayerScaling, scale_views


# Chosen on train rows (hub_cards/tart-reasoner-kernel/suggest.py).
SHARPNESS = 4.0  # of the similarity, per unit of the cosine
SAME = 1 - 5e-4  # cosine from which two inputs are copies, or nearly
MOST = 4096  # inputs that are compared with each other; of more, each of them with some


@dataclass
class Pool:
    """Inputs without labels, from which those to label next are chosen.

    An input covers others as far as their embeddings are similar. Of each, the share of the pool that it covers and
    that no example and no earlier choice does is multiplied by its uncertainty, 1 less the margin between the two most
    likely classes, and the input of the largest product is chosen next. There is no chance in it.

    Attributes:
        views: views of the model.
    """

    views: tuple[View, ...]
    _numbers: list[int] = field(default_factory=list)
    _features: list[Tensor] = field(default_factory=list)
    _uncertainty: list[Tensor] = field(default_factory=list)
    _scalings: tuple[LayerScaling, ...] = ()

    def add(self, numbers: Sequence[int], embeddings: Tensor, logits: Tensor) -> None:
        """Add inputs, with their numbers, embeddings (n, layers, hidden) and logits (n, num_labels)."""
        if not self._scalings:
            self._scalings = tuple(LayerScaling.fit(view) for view in split_views(embeddings, self.views))
        logits = logits if logits.shape[1] > 1 else pad(logits, (0, 1))
        highest = logits.float().softmax(-1).topk(2, dim=-1).values
        self._numbers += numbers
        self._features.append(self._scale(embeddings))
        self._uncertainty.append(1 - (highest[:, 0] - highest[:, 1]).cpu())

    def _scale(self, embeddings: Tensor) -> Tensor:
        """Return features (n, width) of unit norm, float16, of which a dot product is the cosine of two inputs."""
        scaled = scale_views(embeddings.to(self._scalings[0].mean.device), self._scalings)
        parts = [part / len(each.mean) ** 0.5 for part, each in zip(scaled, self._scalings, strict=True)]
        return normalize(torch.cat(parts, dim=-1), dim=-1).half().cpu()

    def choose(self, examples: Tensor, most: int) -> list[dict[str, Any]]:
        """Choose inputs to label next, the best first.

        Args:
            examples (`torch.FloatTensor` of shape `(k, layers, hidden)`):
                Embeddings of the examples, which may be none.
            most (`int`):
                Number of inputs; fewer are returned where the others are copies of examples or of these.

        Returns:
            `list[dict]`: `index` of each input, and `score`, its uncertainty multiplied by the share of the pool that
            it adds to what is covered.
        """
        if not self._numbers:
            return []
        features, uncertainty = torch.cat(self._features), torch.cat(self._uncertainty)
        spaced = torch.linspace(0, len(features) - 1, min(MOST, len(features)), dtype=torch.float32).round().long()
        candidates = uncertainty.argsort(descending=True, stable=True)[:MOST].sort().values
        targets, rows = (normalize(features[chosen].float(), dim=-1) for chosen in (spaced, candidates))
        doubt = uncertainty[candidates]
        covered, is_left = torch.zeros(len(targets)), torch.ones(len(rows), dtype=torch.bool)
        if len(examples):
            known = self._scale(examples if examples.dim() == 3 else examples[:, None]).float()
            known = normalize(known, dim=-1)
            covered = _similarity(targets, known).amax(1)
            is_left = (rows @ known.T).amax(1) < SAME
        similarity, chosen = _similarity(rows, targets), list[dict[str, Any]]()
        while len(chosen) < most and bool(is_left.any()):
            gains = (similarity - covered).clamp_min(0).mean(1) * doubt
            best = int(torch.where(is_left, gains, -1.0).argmax())
            chosen.append({"index": self._numbers[int(candidates[best])], "score": float(gains[best])})
            covered = torch.maximum(covered, similarity[best])
            is_left &= rows @ rows[best] < SAME
            is_left[best] = False  # constant embeddings have no cosine
        return chosen


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return similarities (n, m) between 0 and 1 of features (n, width) and (m, width)."""
    return (SHARPNESS * (first @ second.T - 1)).exp()


__all__ = ["Pool"]
