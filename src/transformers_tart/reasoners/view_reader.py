"""The reading of one view: an architecture on the whole support set, or on parts of it where it is too large."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.inputs.balance import balanced_subsets, seeded_orders
from transformers_tart.projection import fit_projection
from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.mixing import mix
from transformers_tart.reasoners.state import Part, ViewState


@dataclass(frozen=True)
class ViewReader:
    """An architecture, and the limits within which it is used."""

    architecture: Architecture
    config: TartReasonerConfig

    @property
    def max_support(self) -> int:
        """The largest support set that is read in one pass."""
        return min(self.config.max_support, self.architecture.max_support or self.config.max_support)

    @property
    def max_classes(self) -> int | None:
        """The most classes that are read in one pass, beyond which they are read one-vs-rest; `None` for no limit."""
        limits = [m for m in (self.config.max_classes, self.architecture.max_classes) if m is not None]
        return min(limits, default=None)

    def _is_one_vs_rest(self, num_labels: int) -> bool:
        return self.max_classes is not None and num_labels > self.max_classes

    def prepare(
        self, embeddings: Tensor, labels: Tensor, num_labels: int, seed: int, weights: Tensor | None = None
    ) -> ViewState:
        """Encode embeddings (batch, k, dim) with labels (batch, k) and weights (batch, k)."""
        if weights is not None and not self.architecture.takes_weights:
            raise ValueError(
                f'The architecture "{self.config.architecture}" reads no weights of examples: leave them out, or take '
                'TartReasoner.from_pretrained("kernel").'
            )
        _, size, dim = embeddings.shape
        held_out = None
        parts: list[Part] = []
        subsets = balanced_subsets(embeddings, labels, self.max_support) if size else []
        for index in [order for subset in subsets for order in seeded_orders(subset, self.config.num_orders, seed)]:
            chosen = embeddings.gather(1, index[..., None].expand(-1, -1, dim))
            own = None if weights is None else weights.gather(1, index)
            projection = fit_projection(self.config.projection or "none", self.config.num_components, chosen, own)
            state = self._encode(projection.transform(chosen), labels.gather(1, index), num_labels, own)
            parts.append(Part(index, projection, state, index.shape[1] / size / self.config.num_orders))
            found = self.architecture.held_out(state)
            if found is not None:
                if held_out is None:
                    held_out = found.new_full((*labels.shape, num_labels), -math.log(num_labels))
                place = index[..., None].expand(-1, -1, num_labels)
                held_out = held_out.scatter(1, place, self._join_classes(found, num_labels).log_softmax(-1))
        return ViewState(dim, tuple(parts), held_out)

    def _encode(self, embeddings: Tensor, labels: Tensor, num_labels: int, weights: Tensor | None) -> object:
        given = [] if weights is None else [weights]
        if not self._is_one_vs_rest(num_labels):
            return self.architecture.prepare(embeddings, labels, num_labels, *given)
        embeddings = embeddings.repeat_interleave(num_labels, dim=0)
        labels = torch.nn.functional.one_hot(labels, num_labels).transpose(1, 2).flatten(0, 1)
        return self.architecture.prepare(embeddings, labels, 2, *(w.repeat_interleave(num_labels, 0) for w in given))

    def _join_classes(self, logits: Tensor, num_labels: int) -> Tensor:
        """Return logits (batch, n, num_labels), from those of binary tasks where classes were read one-vs-rest."""
        if not self._is_one_vs_rest(num_labels):
            return logits
        log_probability = torch.log_softmax(logits, dim=-1)[..., 1]
        return log_probability.unflatten(0, (-1, num_labels)).transpose(1, 2)

    def query(self, view: ViewState, embeddings: Tensor, num_labels: int) -> Tensor:
        """Return logits (batch, n, num_labels) of query embeddings (batch, n, dim)."""
        logits = [self._query_part(part, embeddings, num_labels) for part in view.parts]
        return mix(logits, [math.log(part.weight) for part in view.parts]) if len(logits) > 1 else logits[0]

    def _query_part(self, part: Part, embeddings: Tensor, num_labels: int) -> Tensor:
        embeddings = part.projection.transform(embeddings)
        if self._is_one_vs_rest(num_labels):
            embeddings = embeddings.repeat_interleave(num_labels, dim=0)
        return self._join_classes(self.architecture.query(part.state, embeddings), num_labels)

    def influence(self, view: ViewState, embeddings: Tensor, num_labels: int) -> Tensor | None:
        """Return contributions (batch, n, k, num_labels) of the examples to the logits; `None` if unknown."""
        if self._is_one_vs_rest(num_labels):
            return None
        size = max(int(part.index.max()) for part in view.parts) + 1
        total = embeddings.new_zeros(*embeddings.shape[:2], size, num_labels)
        for part in view.parts:
            found = self.architecture.influence(part.state, part.projection.transform(embeddings))
            if found is None:
                return None
            total = total.scatter_add(2, part.index[:, None, :, None].expand_as(found), part.weight * found)
        return total
