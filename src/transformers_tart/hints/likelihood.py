"""Label likelihood: how likely a causal language model continues a prompt by the words of a label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from transformers_tart.checks.templates import parse_view_template
from transformers_tart.hints.sources import HintSource
from transformers_tart.hints.spreading import spread
from transformers_tart.inputs.tokenization import encode


@dataclass(frozen=True, eq=False)
class LabelLikelihood:
    """Mean logit of the tokens of a label after the prompt of a view, over its forms and over prompts.

    The state at the end of the prompt is part of the embedding, and only the rows of the label's tokens are read of
    the vocabulary head. The logarithm of the sum over the vocabulary is common to all classes, and left out.

    Attributes:
        rows: rows (tokens, hidden) of the vocabulary head, or, without a softcap, their weighted means
            (classes, hidden).
        bias: bias (tokens,) or (classes,) of these rows.
        weights: weights (classes, tokens) of the tokens in the score of a class, NaN for a class without a text.
            `None` where the rows are those of the classes.
        slots: places of the last layers of prompts among the layers of all views.
        softcap: bound of the logits, as in `final_logit_softcapping` of a config; `None` without.
    """

    rows: Tensor
    bias: Tensor
    slots: tuple[int, ...]
    weights: Tensor | None = None
    softcap: float | None = None

    def __post_init__(self) -> None:
        fits = self.rows.dim() == 2 and self.bias.shape == self.rows.shape[:1] and self.slots
        if not fits or (self.weights is not None and self.weights.shape[1:] != self.bias.shape):
            raise ValueError(f"The rows of a vocabulary head are of shape {tuple(self.rows.shape)} and do not fit.")

    @classmethod
    def build(cls, source: HintSource) -> "LabelLikelihood | None":
        """Read the rows of the vocabulary head; return `None` without a prompt or without a head."""
        prompts = source.prompts()
        if not prompts:
            return None
        tail = parse_view_template(next(iter(prompts)))[0][-1]
        tokens = [_token_weights(source.tokenizer, source.texts[number], tail) for number in source.named]
        ids = sorted({token for each in tokens for token in each})
        head = source.read_head(ids) if ids else None
        if head is None or head.rows.shape[1] != source.embeddings.shape[2]:
            return None
        weights = torch.full((len(source.texts), len(ids)), torch.nan, dtype=torch.float32)
        place = {token: i for i, token in enumerate(ids)}
        for number, each in zip(source.named, tokens, strict=True):
            weights[number] = 0.0
            for token, weight in each.items():
                weights[number, place[token]] = weight
        slots = tuple(prompts.values())
        if head.softcap is not None:
            return cls(head.rows, head.bias, slots, weights, head.softcap)
        return cls(weights @ head.rows, weights @ head.bias, slots)

    def score(self, embeddings: Tensor) -> Tensor:
        """Score embeddings (n, layers of all views, hidden): (n, classes) float32."""
        states = embeddings[:, list(self.slots)].float()
        logits = states @ self.rows.to(states.device).T + self.bias.to(states.device)
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        if self.weights is not None:
            logits = logits @ self.weights.to(states.device).T
        return logits.mean(1)

    def with_classes(self, more: Self | None, places: Sequence[int], size: int) -> "LabelLikelihood":
        """Return the hint for more classes; see [`LabelHints.with_classes`]."""
        if self.weights is None:
            rows, bias = (None, None) if more is None else (more.rows, more.bias)
            return replace(
                self, rows=spread(self.rows, places, size, rows), bias=spread(self.bias, places, size, bias)
            )
        weights = spread(self.weights, places, size)
        if more is None or more.weights is None:
            return replace(self, weights=weights)
        # the tokens of known classes, and then those of the others
        weights = torch.cat([weights, more.weights.to(weights)], dim=1)
        nowhere = weights.isnan().all(1)
        weights = weights.nan_to_num()
        weights[nowhere] = torch.nan
        rows, bias = (torch.cat([own, new.to(own)]) for own, new in ((self.rows, more.rows), (self.bias, more.bias)))
        return replace(self, rows=rows, bias=bias, weights=weights)

    def facts(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"slots": self.slots, "softcap": self.softcap}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors for a safetensors file."""
        found = {"rows": self.rows, "bias": self.bias}
        return found if self.weights is None else {**found, "weights": self.weights}

    @classmethod
    def from_file(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "LabelLikelihood":
        """Build the hint from [`facts`] and [`tensors`]."""
        softcap = None if facts["softcap"] is None else float(facts["softcap"])
        slots = tuple(map(int, facts["slots"]))
        return cls(tensors["rows"], tensors["bias"], slots, tensors.get("weights"), softcap)


def _token_weights(tokenizer: PreTrainedTokenizerBase, text: str | None, tail: str) -> dict[int, float]:
    """Return the share of each token in the forms of a label after the end of a prompt."""
    forms = dict.fromkeys(space + case for case in (str(text), str(text).lower()) for space in ("", " "))
    found: dict[int, float] = {}
    written = [ids for form in forms if (ids := _continuation(tokenizer, form, tail))]
    for ids in written:
        for token in ids:
            found[token] = found.get(token, 0.0) + 1 / (len(ids) * len(written))
    return found


def _continuation(tokenizer: PreTrainedTokenizerBase, form: str, tail: str) -> Sequence[int]:
    """Return the token ids of a form behind the end of a prompt."""
    if not tail:
        return encode(tokenizer, [form], add_special_tokens=False)["input_ids"][0]
    before, whole, alone = encode(tokenizer, [tail, tail + form, form], add_special_tokens=False)["input_ids"]
    return whole[len(before) :] if whole[: len(before)] == before else alone
