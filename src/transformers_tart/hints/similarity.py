"""Label similarity: the cosine of the embeddings of an input and of the text of a label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from transformers_tart.hints.sources import HintSource
from transformers_tart.hints.spreading import spread


@dataclass(frozen=True, eq=False)
class LabelSimilarity:
    """Mean over layers of the cosine of an input and the text of each label, read in the same views.

    Embeddings have much in common whatever the text is: the mean over inputs without content is subtracted.

    Attributes:
        labels: embeddings (classes, slots, hidden) of unit norm, NaN for a class without a text.
        center: point (slots, hidden) from which embeddings are measured.
        slots: places of these layers among those of all views.
    """

    labels: Tensor
    center: Tensor
    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.slots or self.labels.dim() != 3 or self.labels.shape[1] != len(self.slots):
            raise ValueError(
                f"Embeddings of labels must be (classes, {len(self.slots)}, hidden), got {tuple(self.labels.shape)}."
            )
        if self.center.shape != self.labels.shape[1:]:
            raise ValueError(f"The center must be of shape {tuple(self.labels.shape[1:])}, got {self.center.shape}.")

    @classmethod
    def build(cls, source: HintSource) -> "LabelSimilarity | None":
        """Take the embeddings of the texts of the labels."""
        sentence = [slot for i, view in enumerate(source.views) if view.name == "sentence" for slot in source.slots(i)]
        slots = sentence or list(source.prompts().values()) or list(range(sum(source.counts)))
        center = source.without_content[:, slots].float().mean(0)
        chosen = normalize(source.embeddings[:, slots].float() - center, dim=-1)
        labels = chosen.new_full((len(source.texts), *chosen.shape[1:]), torch.nan)
        labels[source.named] = chosen
        return cls(labels, center, tuple(slots))

    def score(self, embeddings: Tensor) -> Tensor:
        """Score embeddings (n, layers of all views, hidden): (n, classes) float32."""
        states = embeddings[:, list(self.slots)].float()
        chosen = normalize(states - self.center.to(states.device), dim=-1)
        return torch.einsum("nsh,csh->nc", chosen, self.labels.to(chosen.device)) / len(self.slots)

    def with_classes(self, more: Self | None, places: Sequence[int], size: int) -> "LabelSimilarity":
        """Return the hint for more classes; see [`LabelHints.with_classes`]."""
        return replace(self, labels=spread(self.labels, places, size, None if more is None else more.labels))

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"slots": self.slots}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a safetensors file."""
        return {"labels": self.labels, "center": self.center}

    @classmethod
    def from_file(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "LabelSimilarity":
        """Build the hint from [`facts`] and [`tensors`]."""
        return cls(tensors["labels"], tensors["center"], tuple(map(int, facts["slots"])))
