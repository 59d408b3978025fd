"""Limits within which an answer has a label: options of a call, and what they take of a support set."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from transformers_tart.answers.conformal import least_probability, predict_held_out
from transformers_tart.answers.scope import Scope
from transformers_tart.checks.arguments import as_flag, as_share
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.support import PreparedSupport


OPTIONS = ("abstain_below", "out_of_scope", "reject_above", "coverage")


@dataclass(frozen=True)
class Limits:
    """Limits within which an answer has a label.

    Attributes:
        least: probability of the best label, below which the label is `None`.
        most: degree of being out of scope, above which it is.
        scope: scope of the examples, where inputs are compared with it.
        excluded: probability below which a label is not in a label set; the best always is.
    """

    least: float | None = None
    most: float | None = None
    scope: Scope | None = None
    excluded: float | None = None


@dataclass(frozen=True)
class Calibration:
    """Measurements of a support set for limits, each made when it is needed, and once.

    Attributes:
        model: the model.
        prepared: the support set, as it has read it.
    """

    model: TartPreTrainedModel
    prepared: PreparedSupport

    @cached_property
    def scope(self) -> Scope:
        """The scope of the examples."""
        return Scope.of(self.prepared)

    @cached_property
    def held_out(self) -> Tensor:
        """The probabilities (k,) of the labels of the examples, predicted without them."""
        return predict_held_out(self.model, self.prepared)

    def limits(self, options: Mapping[str, Any], has_top_k: bool) -> Limits:
        """Return the limits that checked options set.

        Raises:
            ValueError: When the support set, or another option, does not allow them.
        """
        coverage, most = options.get("coverage"), options.get("reject_above")
        needs_scope = options.get("out_of_scope", False) or most is not None
        if needs_scope:
            self._check("out_of_scope" if most is None else "reject_above")
        if coverage is None:
            return Limits(options.get("abstain_below"), most, self.scope if needs_scope else None)
        if has_top_k:
            raise ValueError("coverage and top_k are given, and each sets which labels are listed; give one of them.")
        self._check("coverage")
        self.prepared.support.check_single_label("Label sets (coverage=...)")
        if self.prepared.support.weights is not None:
            raise ValueError("coverage counts examples, and these have weights; leave it out.")
        excluded = least_probability(self.held_out, coverage)
        return Limits(options.get("abstain_below"), most, self.scope if needs_scope else None, excluded)

    def _check(self, name: str) -> None:
        """Raise a ValueError that names an option, unless there are examples that were embedded as inputs are."""
        if not len(self.prepared.support):
            raise ValueError(f"{name} compares inputs with examples, and there are none; give some, or leave it out.")
        if self.prepared.support.prompt is not None:
            raise ValueError(
                f"{name} compares inputs with examples, and a prompt embeds these in another way; leave it out, or "
                'compose the model with protocol="stream".'
            )


def limit_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked options, of the names `OPTIONS`; `None` takes back one of the construction."""
    checked: dict[str, Any] = {}
    for name, value in arguments.items():
        if name == "out_of_scope":
            checked[name] = as_flag(value, name)
        else:
            checked[name] = None if value is None else as_share(value, name)
    if checked.get("coverage") in (0, 1):
        raise ValueError(f"coverage is {checked['coverage']}; it must be above 0 and below 1, such as 0.9.")
    return checked


__all__ = ["OPTIONS", "Calibration", "Limits", "limit_options"]
