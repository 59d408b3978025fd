"""Label similarity: the cosine of the embeddings of an input and of the text of a label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from transformers_tart.hints.sources import HintSource


@dataclass(frozen=True, eq=False)
class LabelSimilarity:
    """Mean over layers of the cosine of an input and the text of each label, read in the same views.

    Attributes:
        labels: embeddings (classes, slots, hidden) of unit norm, NaN for a class without a text.
        slots: places of these layers among those of all views.
    """

    labels: Tensor
    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.labels.dim() != 3 or self.labels.shape[1] != len(self.slots) or not self.slots:
            raise ValueError(
                f"Embeddings of labels must be (classes, {len(self.slots)}, hidden), got {tuple(self.labels.shape)}."
            )

    @classmethod
    def build(cls, source: HintSource) -> "LabelSimilarity | None":
        """Take the embeddings of the texts of the labels."""
        slots = _choose_slots(source)
        chosen = normalize(source.embeddings[:, list(slots)].float(), dim=-1)
        labels = chosen.new_full((len(source.texts), *chosen.shape[1:]), torch.nan)
        labels[source.named] = chosen
        return cls(labels, slots)

    def score(self, embeddings: Tensor) -> Tensor:
        """Score embeddings (n, layers of all views, hidden): (n, classes) float32."""
        chosen = normalize(embeddings[:, list(self.slots)].float(), dim=-1)
        return torch.einsum("nsh,csh->nc", chosen, self.labels.to(chosen.device)) / len(self.slots)

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"slots": self.slots}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a safetensors file."""
        return {"labels": self.labels}

    @classmethod
    def from_file(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "LabelSimilarity":
        """Build the hint from [`facts`] and [`tensors`]."""
        return cls(tensors["labels"], tuple(map(int, facts["slots"])))


def _choose_slots(source: HintSource) -> tuple[int, ...]:
    """Return the layers to compare: the embedding of a sentence encoder if there is one, else all layers."""
    sentence = [slot for i, view in enumerate(source.views) if view.name == "sentence" for slot in source.slots(i)]
    return tuple(sentence or range(sum(source.counts)))
