"""Support sets that a reasoner has read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from transformers_tart.embeddings.phrases import Reading
from transformers_tart.hints.given import parse_given, score_given
from transformers_tart.projection import LayerScaling
from transformers_tart.reasoners.state import ReasonerState
from transformers_tart.support.support_set import SupportSet


@dataclass(frozen=True)
class PreparedSupport:
    """A support set that the reasoner has read."""

    support: SupportSet
    scalings: tuple[LayerScaling, ...]  # of each view
    state: ReasonerState
    reading: Reading | None = None
    token: tuple[object, ...] | None = None  # `state_token` of backbone and reasoner when they read it
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # hints of the user, by their names

    def score_given(self, inputs: Sequence[Any], hints: Any = None) -> Tensor | None:
        """Score queries by the hints of the user.

        Args:
            inputs (`list`):
                n inputs, as they were given.
            hints (`dict`, `Callable` or array, *optional*):
                The hints of the user, or their scores (n, num_labels) of these inputs, where they are not those that
                scored the examples.

        Returns:
            `torch.FloatTensor` of shape `(n, hints of the user, num_labels)`, `None` where there are none.

        Raises:
            ValueError: When a hint by which the examples were scored is missing.
        """
        names = () if self.support.hints is None else self.support.hints.given
        return score_given(names, {**self.functions, **parse_given(hints)}, inputs, self.support.label_names)
