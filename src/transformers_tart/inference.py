"""What a composed model does with support sets and queries: embeds and reads the ones once, and answers the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.backbones.digest import BackboneDigest, state_token
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import as_flag
from transformers_tart.checks.tensors import check_seed
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartConfig
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.prefix_cache import Prefix
from transformers_tart.embeddings.text import EmbeddedExamples, Embedder
from transformers_tart.errors import BackboneMismatchError
from transformers_tart.inputs.examples import Examples, RawExamples
from transformers_tart.inputs.label_names import LabelNamesMixin
from transformers_tart.projection import LayerScaling
from transformers_tart.reasoners.modeling_reasoner import ReasonerState, TartReasoner
from transformers_tart.support import SupportSet, check_is_support, describe_differences


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PreparedSupport:
    """A support set as the model has read it: what every query needs, and nothing that depends on one.

    `token` is that of backbone and reasoner ([`state_token`]) for which the support set was compared and read.
    """

    support: SupportSet
    scaling: LayerScaling
    state: ReasonerState
    prefix: Prefix | None = None
    token: tuple[object, ...] | None = None


class InferenceMixin(LabelNamesMixin):
    """Encodes, prepares and stores support sets, and classifies."""

    config: TartConfig
    backbone: PreTrainedModel
    reasoner: TartReasoner
    support: SupportSet | None
    _prepared: PreparedSupport | None
    _traits: BackboneTraits | None

    def embedder(self, cache: EmbeddingCache | None = None, max_length: int | None = None) -> Embedder:
        """Return the embedder of this model, with a cache or without, and with another longest text."""
        self._keep_mode()
        options = self.config.embedding_options
        if max_length is not None:
            options = replace(options, max_length=max_length)
        return Embedder(self.traits, options, cache)

    @property
    def traits(self) -> BackboneTraits:
        """The backbone with the results of probing it."""
        if self._traits is None or self._traits.backbone is not self.backbone:
            self._traits = BackboneTraits(self.backbone)
        return self._traits

    def _keep_mode(self) -> None:
        """Keep the backbone in evaluation mode, where its answers are those of its examples."""
        if self.backbone.training:
            self.backbone.eval()

    def encode_support(
        self,
        examples: RawExamples,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        keep_texts: bool = False,
        seed: int = 0,
    ) -> SupportSet:
        """Embed labeled examples.

        Args:
            examples (`list[dict]`, `dict[str, list]` or `datasets.Dataset`):
                The examples, as in [`parse_examples`].
            tokenizer (`PreTrainedTokenizerBase`):
                The backbone's tokenizer; of images its image processor, of audio its feature extractor.
            batch_size (`int`, *optional*):
                Most texts of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`):
                Whether to show progress.
            keep_texts (`bool`, *optional*, defaults to `False`):
                Whether the support set keeps the texts.
            seed (`int`, *optional*, defaults to 0):
                Seed of the order of the examples in a prompt, for protocols that write one.
        """
        seed, keep_texts = check_seed(seed), as_flag(keep_texts, "keep_texts")
        parsed = self._parse(examples)
        embedded = self.embedder().embed_examples(
            parsed, tokenizer, batch_size=batch_size, progress_bar=as_flag(progress_bar, "progress_bar"), seed=seed
        )
        return self._support_set(parsed, embedded, keep_texts)

    def prepare_examples(
        self,
        examples: RawExamples,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        keep_texts: bool = False,
        cache: EmbeddingCache | None = None,
        max_length: int | None = None,
        is_stored: bool = False,
    ) -> PreparedSupport:
        """[`encode_support`] and [`prepare_support`] in one, which reads a prompt once instead of twice.

        Args:
            max_length (`int`, *optional*):
                Longest text in tokens, in place of the config's.
            cache ([`EmbeddingCache`], *optional*):
                Where embeddings are looked up first, and kept.
            is_stored (`bool`, *optional*, defaults to `False`):
                Whether they become the support set of the model, so that their labels must be those that a user named
                in `config.id2label`.
        """
        parsed = self._parse(examples) if is_stored else self._parse_apart(examples)
        embedded = self.embedder(cache, max_length).embed_examples(
            parsed, tokenizer, batch_size=batch_size, progress_bar=progress_bar
        )
        support = self._support_set(parsed, embedded, keep_texts, max_length)
        return self._prepare(support, embedded.prefix)

    def set_support(self, support: SupportSet | PreparedSupport | None) -> None:
        """Store a support set with the model, or remove it.

        The label names of the config follow, but for names that a user gave: these name the classes of any support
        set.

        Raises:
            BackboneMismatchError: When it was embedded by another backbone, or with other options.
            ValueError: When there are not as many names as classes.
        """
        if isinstance(support, PreparedSupport):
            if support.support.options is not None:  # which the pipeline may have been given for all of its calls
                self.config.max_length = support.support.options.max_length
            prepared, support = support, support.support
        else:
            prepared = None
        if support is not None:
            check_is_support(support)
            self.check_support(support)
        self._name_classes(support)
        self._prepared, self.support = prepared, support

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
        if support is None:
            support = self.support
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
        prepared = self._prepare(support, self.embedder().read_prompt(support.prompt))
        if support is self.support:
            self._prepared = prepared
        return prepared

    def _is_current(self, prepared: PreparedSupport) -> bool:
        """Whether reasoner and backbone are still where and what they were."""
        prefix, device = prepared.prefix, prepared.scaling.mean.device
        is_in_place = device == self.reasoner.device and (prefix is None or prefix.runtime == self.traits.runtime)
        return is_in_place and (is_traced() or (self._has_options(prepared) and prepared.token == self._token()))

    def _has_options(self, prepared: PreparedSupport) -> bool:
        options = prepared.support.options
        return options is None or describe_differences(options, self.config.embedding_options) is None

    def _token(self) -> tuple[object, ...]:
        return state_token(self.backbone), state_token(self.reasoner)

    def backbone_digest(self) -> BackboneDigest:
        """Digest of the backbone as it is now, under the name that the config refers to."""
        digest = BackboneDigest.of(self.backbone)
        return replace(digest, name=self.config.base_model_name_or_path or digest.name)

    def check_support(self, support: SupportSet) -> None:
        """Check that a support set was embedded by this backbone, with the options of this config.

        Raises:
            BackboneMismatchError: When it was not. The message names what differs.
        """
        current = self.config.embedding_options
        if support.options is not None and (differing := describe_differences(support.options, current)):
            raise BackboneMismatchError(
                f"The support set was embedded with {differing[0]}, the config of the model says {differing[1]}: its "
                "answers would be wrong. Correct the config, or encode the examples again with this model."
            )
        if support.digest is None:
            return
        digest = self.backbone_digest()
        if not digest.is_comparable(support.digest):
            logger.warning_once(
                f"The support set was embedded by a backbone with quantization {support.digest.quantization}, this "
                f"one has {digest.quantization}: whether both are the same model is not checked."
            )
        elif differences := support.digest.differences(digest):
            raise BackboneMismatchError(
                f"The support set was embedded by the backbone {_named(support.digest)}, the model now has "
                f"{_named(digest)}, and {'; '.join(differences)}: its answers would be wrong. Use the former backbone "
                "(backbone=...), or encode the examples again with this one."
            )

    def _support_set(
        self, examples: Examples, embedded: EmbeddedExamples, keep_texts: bool, max_length: int | None = None
    ) -> SupportSet:
        labels = torch.tensor([examples.labels[i] for i in embedded.order], device=embedded.embeddings.device)
        texts = tuple(examples.inputs[i] for i in embedded.order) if keep_texts else None
        options = self.config.embedding_options
        if max_length is not None:
            options = replace(options, max_length=max_length)
        return SupportSet(
            embedded.embeddings,
            labels,
            examples.label_names,
            texts,
            embedded.prompt,
            options,
            self.backbone_digest(),
        )

    def _prepare(self, support: SupportSet, prefix: Prefix | None) -> PreparedSupport:
        embeddings = support.embeddings.to(self.reasoner.device)
        embeddings = embeddings[:, None] if embeddings.dim() == 2 else embeddings
        scaling = LayerScaling.fit(embeddings)
        labels = support.labels.to(self.reasoner.device)[None]
        with torch.no_grad():
            state = self.reasoner.prepare(scaling.transform(embeddings)[None], labels, support.num_labels)
        return PreparedSupport(support, scaling, state, prefix, self._token())

    def classify_rows(
        self,
        rows: Sequence[dict[str, list[int]]],
        support: PreparedSupport,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
        cache: EmbeddingCache | None = None,
        max_length: int | None = None,
    ) -> Tensor:
        r"""
        Classify tokenized texts of any number and length.

        Args:
            rows (`list[dict[str, list[int]]]`):
                `input_ids`, and for pairs `token_type_ids`, of each text, unpadded: from [`Embedder.tokenize`].
            support ([`PreparedSupport`]):
                From [`prepare_support`].
            pad_token_id (`int`, *optional*):
                What fills the rows of a batch.
            batcher ([`Batcher`], *optional*):
                How rows become batches; by a budget of tokens when not given.
            cache ([`EmbeddingCache`], *optional*):
                Where embeddings are looked up first, and kept.
            max_length (`int`, *optional*):
                Longest text of a prompt in tokens, in place of the config's.

        Returns:
            `torch.FloatTensor` of shape `(n, num_labels)`: log-probabilities up to a constant.
        """
        embedder = self.embedder(cache, max_length)
        embeddings = embedder.embed_rows(
            rows, support.support.prompt, support.prefix, pad_token_id=pad_token_id, batcher=batcher
        )
        return self._reason(embeddings, support)

    def _reason(self, embeddings: Tensor, prepared: PreparedSupport) -> Tensor:
        """Logits (n, num_labels) of query embeddings (n, layers, hidden)."""
        embeddings = embeddings.to(self.reasoner.device)
        if not is_traced() and not torch.isfinite(embeddings).all():
            raise ValueError(
                "The backbone gives NaN or infinite embeddings: it is broken, or overflows its dtype. Load it with "
                "dtype=torch.float32 or torch.bfloat16."
            )
        if embeddings.shape[1:] != prepared.scaling.mean.shape:
            raise ValueError(
                f"The support set has embeddings of shape {tuple(prepared.scaling.mean.shape)} (layers, hidden), the "
                f"backbone gives {tuple(embeddings.shape[1:])}: it was made with another backbone or other layers."
            )
        return self.reasoner.query(prepared.state, prepared.scaling.transform(embeddings)[None])[0]


def _named(digest: BackboneDigest) -> str:
    return f'"{digest.name or "without a name"}" (digest {digest.hexdigest})'


__all__ = ["InferenceMixin", "PreparedSupport"]
