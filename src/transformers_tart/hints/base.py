"""Label hints of a task: the kinds that there are, and all that scoring a query needs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from transformers_tart.checks.arguments import check_kind, shorten
from transformers_tart.hints.likelihood import LabelLikelihood
from transformers_tart.hints.similarity import LabelSimilarity
from transformers_tart.hints.sources import HintSource
from transformers_tart.hints.spreading import spread


# Each kind has `build(source)`, which returns `None` where the kind has nothing to go by, `score(embeddings)`, and
# `tensors()`, `facts()` and `from_file(facts, tensors)` for storage.
HINTS: dict[str, Any] = {"label_similarity": LabelSimilarity, "label_likelihood": LabelLikelihood}
MAX_HINTS = 64
PREFIX = "hints."  # of the tensors in a file


@dataclass(frozen=True, eq=False)
class LabelHints:
    r"""
    Label hints of a task, without the texts of its labels.

    Args:
        names (`tuple[str, ...]`):
            Names of the hints: those of `scorers`, in their order, and then those of the user.
        scorers (`tuple`):
            The hints that are functions of embeddings, of the kinds in `HINTS`.
        calibration (`torch.FloatTensor` of shape `(m, num_hints, num_labels)`):
            Scores of inputs without content and of unlabeled inputs, by which hints are centered and scaled. NaN where
            a hint has no score of a class, and for hints that the user gives for each input.
        template (`str`, *optional*), num_described (`int`, *optional*, defaults to 0):
            Template of the texts of labels, where a hint reads them, and number of labels that are described in place
            of their names; for cards.

    Raises:
        ValueError: On names that are not distinct, no hint, or scores of another shape.
    """

    names: tuple[str, ...]
    scorers: tuple[Any, ...]
    calibration: Tensor
    template: str | None = None
    num_described: int = 0

    def __post_init__(self) -> None:
        check_kind("names", self.names, tuple, list)
        check_kind("calibration", self.calibration, Tensor)
        check_kind("template", self.template, str, type(None))
        check_kind("num_described", self.num_described, int)
        object.__setattr__(self, "names", tuple(self.names))
        if not 0 < len(self.names) <= MAX_HINTS or len(set(self.names)) < len(self.names):
            raise ValueError(f"The hints are {shorten(self.names)}; give 1 to {MAX_HINTS}, each with its own name.")
        if tuple(map(type, self.scorers)) != tuple(HINTS.get(name) for name in self.names[: len(self.scorers)]):
            raise ValueError(f"The first hints must be those of {list(HINTS)}, in order; got {shorten(self.names)}.")
        if self.calibration.dim() != 3 or self.calibration.shape[1] != len(self.names):
            raise ValueError(
                f"calibration must be (m, {len(self.names)}, num_labels), got {tuple(self.calibration.shape)}."
            )
        if not self.calibration.is_floating_point() or self.calibration.isinf().any():
            raise ValueError("calibration must hold floating-point numbers, none of them infinite.")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the hints of the user, whose scores are given with each input."""
        return self.names[len(self.scorers) :]

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return self.calibration.shape[2]

    def score(self, embeddings: Tensor) -> Tensor:
        """Score inputs by the hints that are functions of embeddings.

        Args:
            embeddings (`torch.FloatTensor` of shape `(n, layers of all views, hidden)`):
                Embeddings as the embedder gives them.

        Returns:
            `torch.FloatTensor` of shape `(n, len(scorers), num_labels)`: float32, larger for classes that are more
            likely, NaN where a hint has no score of a class.
        """
        return stack_scores(self.scorers, embeddings, self.num_labels)

    def join(self, scores: Tensor, given: Tensor | None) -> Tensor:
        """Return scores (n, hints, classes) with those of the hints of the user behind them.

        Raises:
            ValueError: When these are missing, or of another shape.
        """
        if given is None and not self.given:
            return scores
        expected = (scores.shape[0], len(self.given), self.num_labels)
        if given is None or tuple(given.shape) != expected:
            found = None if given is None else tuple(given.shape)
            raise ValueError(
                f"The support set was scored by the hints {list(self.given)} of the user, and needs scores of shape "
                f"{expected} for these inputs too, got {found}; give hints=..."
            )
        return torch.cat([scores, given.to(scores)], dim=1)

    def with_classes(self, more: "LabelHints | None", places: Sequence[int], size: int) -> "LabelHints":
        """Return the hints for more classes.

        Args:
            more ([`LabelHints`], *optional*):
                Hints for `size` classes, of which those of the new classes are taken; `None` where these have none.
            places (`list[int]`), size (`int`):
                The numbers of the present classes among all, and the number of all.
        """
        of_more = {} if more is None else dict(zip(more.names, range(len(more.names)), strict=True))
        scorers = [
            scorer.with_classes(more.scorers[of_more[name]] if more and name in of_more else None, places, size)
            for name, scorer in zip(self.names, self.scorers, strict=False)
        ]
        count = len(self.calibration) if more is None else min(len(self.calibration), len(more.calibration))
        others = self.calibration.new_full((size, count, len(self.names)), torch.nan)
        for number, name in enumerate(self.names):
            if more is not None and name in of_more:
                others[:, :, number] = more.calibration[:count, of_more[name]].to(others).T
        known = self.calibration[:count].permute(2, 0, 1)
        calibration = spread(known, places, size, others).permute(1, 2, 0)
        described = self.num_described + (0 if more is None else more.num_described)
        return replace(self, scorers=tuple(scorers), calibration=calibration, num_described=described)

    def to(self, device: torch.device | str) -> "LabelHints":
        """Return the hints on another device."""
        moved = tuple(
            type(scorer).from_file(scorer.facts(), _moved(scorer.tensors(), device)) for scorer in self.scorers
        )
        return replace(self, scorers=moved, calibration=self.calibration.to(device))

    def facts(self) -> dict[str, Any]:
        """Return lists and numbers, for JSON."""
        of_card = {"template": self.template, "num_described": self.num_described}
        return {"names": self.names, "scorers": [scorer.facts() for scorer in self.scorers], **of_card}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a safetensors file."""
        found = {f"{PREFIX}calibration": self.calibration}
        for name, scorer in zip(self.names, self.scorers, strict=False):
            found |= {f"{PREFIX}{name}.{field}": tensor for field, tensor in scorer.tensors().items()}
        return {name: tensor.contiguous().cpu() for name, tensor in found.items()}

    @classmethod
    def from_file(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "LabelHints":
        """Build hints from their [`facts`] and the tensors of a file.

        Raises:
            LookupError, ValueError, TypeError: When they are not those of hints of this version.
        """
        names, scorers = tuple(facts["names"]), []
        for name, fields in zip(names, facts["scorers"], strict=False):
            if name not in HINTS:
                raise ValueError(
                    f"The hint {shorten(name)} is none of {list(HINTS)}; update transformers-tart if the file is "
                    "newer."
                )
            prefix = f"{PREFIX}{name}."
            own = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            scorers.append(HINTS[name].from_file(fields, own))
        of_card = {name: facts[name] for name in ("template", "num_described") if name in facts}
        return cls(names, tuple(scorers), tensors[f"{PREFIX}calibration"], **of_card)


def stack_scores(scorers: Sequence[Any], embeddings: Tensor, num_labels: int) -> Tensor:
    """Return the scores (n, hints, classes) float32 of embeddings (n, layers of all views, hidden)."""
    if not scorers:
        return embeddings.new_zeros(embeddings.shape[0], 0, num_labels, dtype=torch.float32)
    return torch.stack([scorer.score(embeddings) for scorer in scorers], dim=1)


def build_scorers(kinds: Sequence[str], source: HintSource) -> dict[str, Any]:
    """Build the hints of some kinds, in the order of `HINTS`; kinds that have nothing to go by are left out."""
    built = {name: HINTS[name].build(source) for name in HINTS if name in kinds}
    return {name: scorer for name, scorer in built.items() if scorer is not None}


def _moved(tensors: Mapping[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


__all__ = ["HINTS", "LabelHints", "build_scorers", "stack_scores"]
