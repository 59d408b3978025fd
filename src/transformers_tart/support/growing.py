"""Support sets that grow and shrink: of a stored one, only what is new is embedded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from transformers.utils import logging

from transformers_tart.backbones.origin import read_vocabulary
from transformers_tart.backbones.vocabulary import HeadRows
from transformers_tart.checks.arguments import shorten
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.embeddings.text import Embedder
from transformers_tart.hints.given import functions_of, parse_given, score_given
from transformers_tart.hints.label_texts import label_texts
from transformers_tart.hints.requests import HintRequest, parse_request
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.labels import STRINGS
from transformers_tart.support.encoding import EncodedExamples, SupportEncoder, label_tensor
from transformers_tart.support.keys import find_keys, keys_of
from transformers_tart.support.support_set import SupportSet


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class SupportGrower:
    """A support set with all that adding and removing examples takes.

    Attributes:
        support: the support set.
        embedder: embedder of the model that embedded it.
        reading: reading of its queries, if it has any.
        given: hints of the user by their names: functions, or scores of the examples that are added.
        read_head: function from token ids to rows of the vocabulary head of the backbone.
    """

    support: SupportSet
    embedder: Embedder
    reading: Reading | None
    given: Mapping[str, Any]
    read_head: Callable[[Sequence[int]], HeadRows | None]

    @classmethod
    def of(cls, model: Any, hints: Any = None, cache: EmbeddingCache | None = None) -> Self:
        """Return the stored support set of a model, with `hints` of the user beside those that are known.

        Raises:
            BackboneMismatchError: When the model is no longer the one that embedded it.
            ValueError: When there is none.
        """
        support, prepared, embedder = model.support, model._prepared, model.embedder(cache)
        if support is None:
            raise ValueError("There is no support set yet; give the first examples to set_support or set_examples.")
        model.check_support(support)
        known = prepared if prepared is not None and prepared.support is support else None
        reading = None
        if known is not None and model._is_current(known):
            reading = known.reading
        elif not embedder.options.has_prompt:
            reading = embedder.read_support(None, support.phrasing)
        given = {**({} if known is None else known.functions), **parse_given(hints)}
        return cls(support, embedder, reading, given, partial(read_vocabulary, model))

    def add(
        self, more: Examples, tokenizer: Any, label_descriptions: Any = None, unlabeled: Any = None, **options: Any
    ) -> tuple[SupportSet, Reading | None]:
        """Embed more examples; return the support set with them, and the reading of its queries.

        Args:
            more ([`Examples`]):
                The examples, whose `label_names` are all classes in order.
            tokenizer (`PreTrainedTokenizerBase`):
                Processor of the backbone.
            label_descriptions (`dict[str, str]`, *optional*), unlabeled (`list`, *optional*):
                Descriptions of new classes, and inputs by which their hints are calibrated.
            options:
                As in [`Embedder.embed_examples`].

        Raises:
            ValueError: When texts of present examples are needed and are not kept.
        """
        self._check_labels(more)
        self._warn_about_copies(more)
        names = () if self.support.hints is None else self.support.hints.given
        scores = score_given(names, self.given, more.inputs, more.label_names)
        places = [more.label_names.index(name) for name in self.support.label_names]
        present = self._spread_given(places, more.label_names)
        if present is not None and scores is not None:
            present = torch.cat([present, scores.to(present)])
        if self.embedder.options.has_prompt:
            texts = self._texts("added to")
            labels = [places[label] for label in self.support.labels.tolist()]
            inputs, weights = [*texts, *more.inputs], _as_list(self._join_weights(more))
            kind, lists = self.support.label_kind, more.label_lists
            whole = Examples(inputs, [*labels, *more.labels], more.label_names, kind, weights, lists)
            return self._encode(whole, present, tokenizer, options)
        new = [name for name in more.label_names if name not in self.support.label_names]
        request = self._request(new, label_descriptions, unlabeled)
        described = label_texts(new, request.descriptions) if request.kinds else ()
        texts = tuple(dict(zip(new, described, strict=False)).get(name) for name in more.label_names)
        encoder = SupportEncoder(self.embedder, self.support.digest, request, texts, self.read_head)
        found = encoder.embed(more, tokenizer, reading=self.reading, **options)
        return self._join(more, found, places, present), self.reading or found.reading

    def _check_labels(self, more: Examples) -> None:
        """Raise a ValueError unless the labels of more examples are of the kind of the present ones."""
        support, has_lists = self.support, more.label_lists is not None
        if len(support) and has_lists != support.is_multi_label:
            raise ValueError(
                f"The labels are {'lists' if has_lists else 'single ones'}, and the support set was made of examples "
                f"with {'one label each' if has_lists else 'lists of labels'}; give labels of that form, or give all "
                "examples again (set_examples)."
            )
        has_labels = not has_lists or any(more.label_lists or ())
        if has_labels and support.label_kind not in (STRINGS, more.label_kind):
            raise ValueError(
                f"The labels are {more.label_kind}, and those of the support set are {support.label_kind}."
            )

    def take(self, rows: Sequence[int], tokenizer: Any, **options: Any) -> tuple[SupportSet, Reading | None]:
        """Return the support set of some of the examples, and the reading of its queries; see [`add`]."""
        support, kept = self._restored(), torch.tensor(rows, dtype=torch.int64)
        labels = support.labels[kept.to(support.labels.device)]
        count, has_lists = len(labels.unique()), len(rows) > 0 and support.is_multi_label
        if count < 2 and support.hints is None and not has_lists:
            raise ValueError(
                f"{len(rows)} of {len(support)} examples would be left, of {count} classes; a support set needs "
                "examples of two, or label hints. Add others first."
            )
        fewer = take_rows(support, kept)
        if self.embedder.options.has_prompt:
            texts = self._texts("taken from")
            kept_texts, names, weights = [texts[row] for row in rows], support.label_names, _as_list(fewer.weights)
            whole = Examples(kept_texts, labels.tolist(), names, support.label_kind, weights)
            return self._encode(whole, fewer.given_hints, tokenizer, options)
        return fewer, self.reading

    def _restored(self) -> SupportSet:
        """Return the support set with its embeddings as they were before packing, as long as these are known."""
        packed = self.support.packed
        embeddings = None if packed is None else packed.restore()
        if embeddings is None:
            return self.support
        return replace(self.support, embeddings=embeddings.to(self.support.embeddings.device), packed=None)

    def _encode(
        self, examples: Examples, given: Tensor | None, tokenizer: Any, options: Mapping[str, Any]
    ) -> tuple[SupportSet, Reading | None]:
        """Encode all examples anew, since each is embedded beside the others."""
        names = () if self.support.hints is None else self.support.hints.given
        scores = {} if given is None else dict(zip(names, given.unbind(1), strict=True))
        encoder = SupportEncoder(self.embedder, self.support.digest, HintRequest(given=scores), None, self.read_head)
        return encoder.encode(examples, tokenizer, keep_texts=True, **options)

    def _texts(self, verb: str) -> tuple:
        if self.support.texts is None:
            raise ValueError(
                f'With the protocol "{self.embedder.options.protocol}" all examples stand in one prompt, which is '
                f"written anew when examples are {verb} it, and this support set holds no texts: encode all examples "
                "again (set_examples), or save the task with include_texts=True."
            )
        return self.support.texts

    def _request(self, new: Sequence[str], descriptions: Any, unlabeled: Any) -> HintRequest:
        """Return the request for the hints of new classes."""
        given = descriptions if isinstance(descriptions, Mapping) else ()
        if present := [name for name in given if str(name) in self.support.label_names]:
            raise ValueError(
                f"label_descriptions names {shorten(present)}, classes that the support set has already, whose texts "
                "stay; describe new ones alone, or give all examples again (set_examples)."
            )
        hints = self.support.hints
        kinds = list(hints.names[: len(hints.scorers)]) if hints is not None and new else []
        functions = functions_of(self.given) if hints is not None and new else {}
        template = (None if hints is None else hints.template) or "{}"
        request = parse_request([*kinds, functions], new, template, descriptions, unlabeled)
        return replace(request, is_auto=True)  # a new class may have no text

    def _spread_given(self, places: Sequence[int], label_names: tuple[str, ...]) -> Tensor | None:
        """Return the scores (k, hints of the user, classes) of the present examples, for all classes."""
        support, given = self.support, self.support.given_hints
        if given is None or len(places) == len(label_names):
            return given
        names = () if support.hints is None else support.hints.given
        if len(support) and (support.texts is None or any(not callable(self.given[name]) for name in names)):
            raise ValueError(
                f"The hints {list(names)} of the user have no scores of the new classes for the {len(support)} "
                "examples that there are, which takes functions and the texts; encode all examples again "
                "(set_examples)."
            )
        found = score_given(names, self.given, support.texts or (), label_names)
        return None if found is None else found.to(given)

    def _join(self, more: Examples, found: EncodedExamples, places: Sequence[int], given: Tensor | None) -> SupportSet:
        """Return the support set with embedded examples."""
        support, size = self._restored(), len(more.label_names)
        added = found.embeddings.reshape(-1, *support.embeddings.shape[1:]).to(support.embeddings)
        packed = None if support.packed is None else support.packed.append(added)
        present = support.labels if len(support) else support.labels.new_zeros(0)  # which were lists, perhaps
        labels = _renumber(present, places, size, is_multi_label=more.label_lists is not None)
        labels = torch.cat([labels, label_tensor(more).to(labels)])
        hints = support.hints
        if hints is not None and size > len(places):
            hints = hints.with_classes(found.hints, places, size)
            self._warn_about_calibration(len(hints.calibration))
        has_texts = self.embedder.modality.is_tokenized and len(support) == 0
        texts = () if has_texts and support.texts is None else support.texts
        keys = keys_of(()) if has_texts else support.keys
        return replace(
            support,
            embeddings=torch.cat([support.embeddings, added])
            if packed is None
            else packed.unpack().to(support.embeddings.device),
            labels=labels,
            label_names=more.label_names,
            texts=None if texts is None else (*texts, *more.inputs),
            packed=packed,
            hints=hints,
            given_hints=given,
            keys=None if keys is None else torch.cat([keys, keys_of(more.inputs)]),
            weights=self._join_weights(more),
            label_kind=self.support.label_kind if len(support) else more.label_kind,
        )

    def _join_weights(self, more: Examples) -> Tensor | None:
        """Return the weights of the present examples and of more; `None` where all count once."""
        present = self.support.weights
        if present is None and more.weights is None:
            return None
        present = torch.ones(len(self.support)) if present is None else present
        added = torch.ones(len(more.inputs)) if more.weights is None else torch.tensor(more.weights)
        return torch.cat([present, added.to(present)])

    def _warn_about_calibration(self, count: int) -> None:
        """Log that hints of new classes are calibrated by fewer inputs than those of the present ones were."""
        before = 0 if self.support.hints is None else len(self.support.hints.calibration)
        if count < before:
            logger.warning(
                f"The label hints were calibrated by {before} inputs, of which {count} are left: those without labels "
                "are not stored, and new classes need them too. Give unlabeled=... with the examples."
            )

    def _warn_about_copies(self, more: Examples) -> None:
        """Log how many examples are there already; never a text itself."""
        if self.support.keys is None or not self.embedder.modality.is_tokenized:
            return
        copies = contradictions = 0
        for labels, rows in zip(more.label_sets(), find_keys(self.support.keys, keys_of(more.inputs)), strict=True):
            known = {self.support.label_set(row) for row in rows}
            copies += labels in known
            contradictions += bool(known - {labels})
        if copies:
            logger.warning(f"{copies} of {len(more.inputs)} added examples are in the support set already.")
        if contradictions:
            logger.warning(
                f"{contradictions} of {len(more.inputs)} added examples have texts that are in the support set with "
                "another label; remove_examples removes these."
            )


def take_rows(support: SupportSet, rows: Tensor) -> SupportSet:
    """Return the support set of some of the examples, given by their indices."""

    def take(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows.to(tensor.device)]

    kept: dict[str, Any] = {
        name: take(getattr(support, name)) for name in ("embeddings", "labels", "given_hints", "keys", "weights")
    }
    texts = None if support.texts is None else tuple(support.texts[row] for row in rows.tolist())
    packed = None if support.packed is None else support.packed.take(rows)
    return replace(support, texts=texts, packed=packed, **kept)


def _renumber(labels: Tensor, places: Sequence[int], size: int, is_multi_label: bool) -> Tensor:
    """Return the labels of present examples, given the numbers of their classes among all."""
    if not is_multi_label:
        return torch.tensor(places, device=labels.device)[labels]
    found = labels.new_zeros(len(labels), size)
    if len(labels):
        found[:, places] = labels
    return found


def _as_list(weights: Tensor | None) -> list[float] | None:
    return None if weights is None else weights.tolist()


__all__ = ["SupportGrower", "take_rows"]
