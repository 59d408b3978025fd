"""The part of the composed classifiers that reads support sets and answers queries."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from transformers_tart.backbones.digest import BackboneDigest, state_token
from transformers_tart.backbones.model_inputs import classification_loss
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.packing import draw_probes, is_unchanged
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import split_views
from transformers_tart.hints.single_labels import as_task
from transformers_tart.projection import LayerScaling, scale_views
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.reasoners.state import Votes
from transformers_tart.support import PreparedSupport, SupportSet, check_is_support


class AnsweringModel(PreTrainedModel):
    """Base of composed classifiers: a backbone that embeds, and a reasoner that reads a support set and answers."""

    config: TartBaseConfig
    backbone: PreTrainedModel
    reasoner: TartReasoner
    support: SupportSet | None
    _prepared: PreparedSupport | None
    _traits: BackboneTraits | None
    _embedder_class = Embedder

    def embedder(self, cache: EmbeddingCache | None = None, max_length: int | None = None) -> Embedder:
        """Return the [`Embedder`] or [`MediaEmbedder`] of this model, its backbone in evaluation mode.

        Args:
            cache ([`EmbeddingCache`], *optional*), max_length (`int`, *optional*):
                Where embeddings are looked up first, and kept; and the longest text in tokens, if not the config's.
        """
        if self.backbone.training:
            self.backbone.eval()
        options = self.config.embedding_options
        if max_length is not None:
            options = replace(options, max_length=max_length)
        return self._embedder_class(self.traits, options, cache, self.config.modality)

    @property
    def traits(self) -> BackboneTraits:
        """The backbone with the results of probing it."""
        if self._traits is None or self._traits.backbone is not self.backbone:
            self._traits = BackboneTraits(self.backbone)
        return self._traits

    def adopt(self, traits: BackboneTraits) -> None:
        """Take over the results of probing the backbone."""
        self._traits = traits

    def backbone_digest(self) -> BackboneDigest:
        """Return the digest of the backbone as it is now, under the name that the config refers to."""
        digest = BackboneDigest.of(self.backbone)
        return replace(digest, name=self.config.base_model_name_or_path or digest.name)

    def check_support(self, support: SupportSet) -> None:
        """Raise a BackboneMismatchError unless this backbone and the options of this config embedded a support set."""
        support.check_options(self.config.embedding_options)
        if support.digest is not None:
            support.check_backbone(self.backbone_digest())

    def prepare_support(self, support: SupportSet | PreparedSupport | None = None) -> PreparedSupport:
        """Read a support set once; [`forward`] takes the result as `support`.

        Args:
            support ([`SupportSet`], *optional*):
                The stored one when not given, which is read at most once.
        """
        if isinstance(support, PreparedSupport):
            if self._is_current(support):
                return support
            support = support.support
        support = self.support if support is None else support
        if support is None:
            raise ValueError(
                "There is no support set: pass support=model.encode_support(examples, tokenizer) to the model, or "
                "examples=... to the pipeline."
            )
        check_is_support(support)
        cached = self._prepared
        if cached is not None and cached.support is support and self._is_current(cached):
            return cached
        if is_traced():
            raise ValueError(
                "The support set has not been read yet, and reading it cannot be exported: call "
                "model.prepare_support() first."
            )
        self.check_support(support)
        prepared = self.prepare_embedded(support, self.embedder().read_support(support.prompt, support.phrasing))
        if support is self.support:
            self._prepared = prepared
        return prepared

    def prepare_embedded(
        self,
        support: SupportSet,
        reading: Reading | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> PreparedSupport:
        """Read a support set that this model has embedded, with the reading of its queries and hints if it has any."""
        device = self.reasoner.device
        embeddings = support.embeddings.to(device)
        embeddings = embeddings[:, None] if embeddings.dim() == 2 else embeddings
        # without examples there is nothing to scale, and constant layers become 0
        fitted = embeddings if len(support) else embeddings.new_zeros(1, *embeddings.shape[1:])
        views = split_views(fitted, self.config.embedding_options.views)
        weights = None if support.weights is None else support.weights.to(device)
        scalings, hints = tuple(LayerScaling.fit(view, weights) for view in views), support.hints
        with torch.no_grad():
            is_multi, scores, labels = support.is_multi_label, support.scores(), support.labels.to(device)
            labels = 1 - labels.T if is_multi else labels[None]  # the first of two classes has the label
            used = len(support) if support.has_two_classes else 0  # those of one class separate nothing
            labels = labels[:, :used]
            scaled = [view[:used].expand(len(labels), -1, -1) for view in scale_views(embeddings, scalings)]
            of_examples = unlabeled = None
            if hints is not None and scores is not None:
                of_examples = as_task(scores[:used], hints.calibration, is_multi).to(device)
                unlabeled = as_task(hints.calibration, hints.calibration, is_multi).to(device)
            of_task = None if weights is None else weights[:used].expand(len(labels), -1)
            hinted = (of_examples, unlabeled, 2 if is_multi else max(2, support.num_labels))
            state = self.reasoner.prepare(scaled, labels, *hinted, support_weights=of_task)
        return PreparedSupport(support, scalings, state, reading, self._token(), functions or {})

    def _pack(self, prepared: PreparedSupport) -> PreparedSupport:
        """Prepare a support set with packed embeddings, unless they are not smaller or change predictions."""
        packed = None if prepared.support.packed is not None else prepared.support.pack()
        if packed is None:
            return prepared
        candidate = self.prepare_embedded(packed, prepared.reading, prepared.functions)
        probes, given = draw_probes(packed.embeddings), packed.given_hints
        given = None if given is None else draw_probes(given)
        with torch.no_grad():
            logits, packed_logits = (self.answer(probes, each, given) for each in (prepared, candidate))
        if prepared.support.is_multi_label:  # each label beside none
            logits, packed_logits = (
                torch.nn.functional.pad(each[..., None], (0, 1)) for each in (logits, packed_logits)
            )
        return candidate if is_unchanged(logits, packed_logits) else prepared

    def _is_current(self, prepared: PreparedSupport) -> bool:
        """Return whether reasoner, backbone and options are those for which a support set was prepared."""
        reading, options = prepared.reading, prepared.support.options
        is_in_place = prepared.scalings[0].mean.device == self.reasoner.device
        if not is_in_place or (reading is not None and reading.runtime != self.traits.runtime):
            return False
        has_options = options in (None, self.config.embedding_options)
        return is_traced() or (has_options and prepared.token == self._token())

    def _token(self) -> tuple[object, ...]:
        return state_token(self.backbone), state_token(self.reasoner)

    def _classify_batch(
        self,
        batch: dict[str, Tensor],
        support: SupportSet | PreparedSupport | None,
        labels: Tensor | None,
        hints: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Embed a batch of checked tensors and classify it."""
        prepared = self.prepare_support(support)
        logits = self.answer(self.embedder().embed_batch(batch, prepared.reading), prepared, hints)
        loss = None if labels is None else classification_loss(logits, labels, prepared.support.is_multi_label)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def answer(self, embeddings: Tensor, prepared: PreparedSupport, given_hints: Tensor | None = None) -> Tensor:
        """Return the logits of query embeddings.

        Args:
            embeddings (`torch.FloatTensor` of shape `(n, layers, hidden)`):
                Embeddings of queries, as an embedder returns them.
            prepared ([`PreparedSupport`]):
                The support set.
            given_hints (`torch.FloatTensor` of shape `(n, hints of the user, num_labels)`, *optional*):
                Scores of the queries by the hints of the user, from [`PreparedSupport.score_given`].

        Returns:
            `torch.FloatTensor` of shape `(n, num_labels)`: log-probabilities up to a constant; or the log-odds of each
            label, of a single one or of a support set with several labels an example.
        """
        logits = self.reasoner.query(prepared.state, *self._scale(embeddings, prepared, given_hints))
        if prepared.support.num_labels > 1 and not prepared.support.is_multi_label:
            return logits[0]
        return (logits[..., 0] - logits[..., 1]).T

    def explain(self, embeddings: Tensor, prepared: PreparedSupport, given_hints: Tensor | None = None) -> Votes:
        """Return the votes of views and hints, and the influence of examples; arguments are as in [`answer`]."""
        prepared.support.check_single_label("Explanations")
        with torch.no_grad():
            return self.reasoner.explain(prepared.state, *self._scale(embeddings, prepared, given_hints))

    def _scale(
        self, embeddings: Tensor, prepared: PreparedSupport, given_hints: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return query embeddings as the reasoner reads them, and all hints (1, n, hints, num_labels)."""
        embeddings = embeddings.to(self.reasoner.device)
        if not is_traced() and not torch.isfinite(embeddings).all():
            raise ValueError(
                "The backbone gives NaN or infinite embeddings: it is broken, or overflows its dtype. Load it with "
                "dtype=torch.float32 or torch.bfloat16."
            )
        hints, batch = prepared.support.hints, prepared.state.batch
        scaled = [view.expand(batch, -1, -1) for view in scale_views(embeddings, prepared.scalings)]
        if hints is None:
            return scaled, None if given_hints is None else given_hints[None]
        scores = hints.join(hints.score(embeddings), given_hints)
        return scaled, as_task(scores, hints.calibration, prepared.support.is_multi_label)


__all__ = ["AnsweringModel"]
