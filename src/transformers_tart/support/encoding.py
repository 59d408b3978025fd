"""Encoding of examples: the support set of a model, with its label hints, in one pass over all texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transformers_tart.backbones.digest import BackboneDigest
from transformers_tart.backbones.vocabulary import HeadRows
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import layer_counts
from transformers_tart.hints.base import LabelHints, build_scorers, stack_scores
from transformers_tart.hints.given import functions_of, score_given
from transformers_tart.hints.requests import WITHOUT_CONTENT, HintRequest
from transformers_tart.hints.sources import HintSource
from transformers_tart.inputs.examples import Examples
from transformers_tart.support.keys import keys_of
from transformers_tart.support.support_set import SupportSet


class EncodedExamples(NamedTuple):
    """Embedded examples with their hints, in the order of a prompt where the protocol has one."""

    embeddings: Tensor  # (k, layers of all views, hidden)
    order: list[int]  # indices of the examples
    reading: Reading | None
    hints: LabelHints | None
    given: Tensor | None  # (k, hints of the user, num_labels) in this order


@dataclass(frozen=True)
class SupportEncoder:
    """Encoder of examples for a composed model.

    Attributes:
        embedder: embedder of the model.
        digest: digest of its backbone, `None` if unknown.
        request: label hints that are asked for.
        texts: text of each label, `None` for labels without meaning; or `None` where no hint goes by them.
        read_head: function from token ids to rows of the vocabulary head of the backbone.
    """

    embedder: Embedder
    digest: BackboneDigest | None
    request: HintRequest
    texts: tuple[str | None, ...] | None
    read_head: Callable[[Sequence[int]], HeadRows | None]

    def encode(
        self, examples: Examples, tokenizer: Any, keep_texts: bool = False, **options: Any
    ) -> tuple[SupportSet, Reading | None]:
        """Embed examples, which may be none, and what their hints need; return them and the reading of queries.

        `options` are as in [`Embedder.embed_examples`].
        """
        if examples.label_lists is not None and self.embedder.options.has_prompt:
            raise ValueError(
                f'The examples have lists of labels, and the protocol "{self.embedder.options.protocol}" writes one '
                'label beside each in its prompt; compose the model with protocol="stream".'
            )
        found = self.embed(examples, tokenizer, **options)
        prompt = phrasing = None
        if found.reading is not None:
            prompt, phrasing = found.reading.prefixes[0].prompt, found.reading.phrasing
        inputs, device = tuple(examples.inputs[i] for i in found.order), found.embeddings.device
        weights = None if examples.weights is None else torch.tensor([examples.weights[i] for i in found.order])
        support = SupportSet(
            found.embeddings,
            label_tensor(examples)[found.order].to(device),
            examples.label_names,
            inputs if keep_texts else None,
            prompt,
            self.embedder.options,
            self.digest,
            phrasing,
            hints=found.hints,
            given_hints=found.given,
            keys=keys_of(inputs) if self.embedder.modality.is_tokenized else None,
            label_kind=examples.label_kind,
            weights=None if weights is None else weights.to(device),
        )
        return support, found.reading

    def embed(self, examples: Examples, tokenizer: Any, **options: Any) -> EncodedExamples:
        """Embed examples, which may be none, and what their hints need; arguments are as in [`encode`]."""
        labels = [self.request.template.format(text) for text in self.texts or () if text is not None]
        is_text = self.embedder.modality.is_tokenized and not self.embedder.options.has_prompt
        beside = [*labels, *self.request.calibrating] if labels or (self.request.given and is_text) else []
        if not beside and not examples.inputs and (make_blank := self.embedder.modality.blank) is not None:
            beside = [make_blank()]
        together = replace(examples, inputs=[*examples.inputs, *beside])
        found = self.embedder.embed_examples(together, tokenizer, **options)
        size = len(examples.inputs)
        order, reading = [i for i in found.order if i < size], found.reading
        sizes = (len(order), len(labels), len(beside) - len(labels))
        embeddings, of_labels, calibrating = found.embeddings.split(sizes)
        calibrating = calibrating if labels else calibrating[:0]  # not the blank input
        hints = self._build(of_labels, calibrating, tokenizer, examples.label_names)
        given = (
            None
            if hints is None
            else score_given(hints.given, self.request.given, examples.inputs, examples.label_names)
        )
        given = None if given is None else given[order].to(embeddings.device)
        return EncodedExamples(embeddings, order, reading, hints, given)

    def _build(
        self, labels: Tensor, calibrating: Tensor, tokenizer: Any, label_names: tuple[str, ...]
    ) -> LabelHints | None:
        """Build the hints from the embeddings of the texts of labels and of calibrating inputs."""
        given, scorers = self.request.given, {}
        if self.texts is not None and len(labels):
            views = self.embedder.views
            counts = layer_counts(views, labels.shape[1]) if len(views) > 1 else (labels.shape[1],)
            neutral = calibrating[: len(WITHOUT_CONTENT)]
            source = HintSource(self.texts, labels, neutral, views, counts, tokenizer, self.read_head)
            scorers = build_scorers(self.request.kinds, source)
            if not self.request.is_auto and (missing := [kind for kind in self.request.kinds if kind not in scorers]):
                raise ValueError(
                    f"The label hint {missing[0]!r} needs a view with a template that ends the text (such as "
                    "'one_word') and a causal language model whose vocabulary head can be read; leave it out."
                )
        if not scorers and not given:
            return None
        scores = [stack_scores(list(scorers.values()), calibrating, len(label_names)).cpu()]
        if given:
            scores.append(self._calibrate_given(len(calibrating), label_names))
        names = (*scorers, *given)
        described = (self.request.template, len(self.request.descriptions)) if scorers else ()
        hints = LabelHints(names, tuple(scorers.values()), torch.cat(scores, dim=1), *described)
        return hints.to(labels.device)

    def _calibrate_given(self, count: int, label_names: tuple[str, ...]) -> Tensor:
        """Score the calibrating inputs by the hints of the user that are functions; the others have no scores."""
        found = torch.full((count, len(self.request.given), len(label_names)), torch.nan)
        functions = functions_of(self.request.given) if count else {}
        for number, name in enumerate(self.request.given):
            if name in functions:
                scores = score_given((name,), functions, self.request.calibrating, label_names)
                found[:, number] = found[:, number] if scores is None else scores[:, 0]
        return found


def label_tensor(examples: Examples) -> Tensor:
    """Return labels (k,) int64, or (k, num_labels) with 1 for each label of an example that may have several."""
    if examples.label_lists is None:
        return torch.tensor(examples.labels, dtype=torch.int64)
    members = torch.zeros(len(examples.inputs), len(examples.label_names), dtype=torch.int64)
    for row, own in zip(members, examples.label_lists, strict=True):
        row[own] = 1
    return members


__all__ = ["EncodedExamples", "SupportEncoder", "label_tensor"]
