"""The base of the composed classifiers: a frozen backbone by reference, a reasoner, and optionally a support set."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from transformers_tart.backbones.digest import BackboneDigest, state_token
from transformers_tart.backbones.model_inputs import check_labels
from transformers_tart.backbones.towers import build_tower
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import as_flag, check_kind
from transformers_tart.checks.label_names import are_usual, config_names, set_config_names, usual_names
from transformers_tart.checks.tensors import check_seed
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.packing import draw_probes, is_unchanged
from transformers_tart.embeddings.phrases import Reading
from transformers_tart.embeddings.text import Embedder
from transformers_tart.embeddings.views import split_views
from transformers_tart.files import staged
from transformers_tart.hints.given import functions_of
from transformers_tart.hints.requests import HintRequest, choose_texts, parse_request
from transformers_tart.hints.single_labels import as_task
from transformers_tart.hub.card import CardFacts, classifier_card
from transformers_tart.hub.push import HubMixin, keep_edited_card
from transformers_tart.inputs.candidates import parse_candidates
from transformers_tart.inputs.examples import Examples, RawExamples, parse_examples
from transformers_tart.inputs.text_options import DEFAULT_HYPOTHESIS
from transformers_tart.inputs.views import View
from transformers_tart.loading.checksums import add_checksums
from transformers_tart.loading.download import explain_failures
from transformers_tart.loading.pickling import restore, state_without_capture_hooks
from transformers_tart.origin import Origin, check_backbone, check_folder
from transformers_tart.projection import LayerScaling, scale_views
from transformers_tart.reasoners.modeling_reasoner import TartReasoner
from transformers_tart.reasoners.state import Votes
from transformers_tart.repository import (
    BACKBONE_KEYS,
    OWNED,
    compose,
    config_to_save,
    load_composed,
    read_vocabulary,
    save_parts,
)
from transformers_tart.support import PreparedSupport, SupportSet, check_is_support, join_given
from transformers_tart.support.encoding import SupportEncoder


class TartPreTrainedModel(HubMixin, PreTrainedModel):
    r"""
    Few-shot classifier: a frozen backbone embeds, a reasoner reads the support set and predicts.

    Args:
        config ([`TartBaseConfig`]):
            Its configuration.
        backbone (`PreTrainedModel`, *optional*):
            A loaded backbone; a random one is built from its part of the config when not given.
        reasoner ([`TartReasoner`], *optional*):
            A loaded reasoner; a random one is built from `config.reasoner_config` when not given.
    """

    config: TartBaseConfig
    backbone: PreTrainedModel
    reasoner: TartReasoner
    base_model_prefix = "backbone"
    _embedder_class = Embedder
    accepts_loss_kwargs = False  # the loss is a mean, which the trainer scales
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self, config: TartBaseConfig, backbone: PreTrainedModel | None = None, reasoner: TartReasoner | None = None
    ):
        check_kind("config", config, TartBaseConfig)
        check_kind("backbone", backbone, PreTrainedModel, type(None))
        check_kind("reasoner", reasoner, TartReasoner, type(None))
        super().__init__(config)
        if backbone is None and config.base_model_config is None:
            raise ValueError(
                f"The config describes no backbone: give {config.backbone_key}, or compose one with from_backbone."
            )
        self.backbone = build_tower(config.base_model_config, config.modality) if backbone is None else backbone
        self.reasoner = TartReasoner(config.reasoner) if reasoner is None else reasoner
        for given in (backbone, reasoner):
            # post_init must not touch what is loaded, layers added after loading included
            for module in given.modules() if given is not None else ():
                module._is_hf_initialized = True  # type: ignore[assignment]
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        # as transformers sets them on saving, which then changes nothing
        config.architectures, config.dtype = [type(self).__name__], str(self.dtype).removeprefix("torch.")
        self.support: SupportSet | None = None
        self.origin = Origin()
        self.card_facts = CardFacts()
        self._prepared: PreparedSupport | None = None
        self._traits: BackboneTraits | None = None
        # names that came from examples, which those of the next examples replace
        self._names_of_examples: tuple[str, ...] | None = None
        self.post_init()
        frozen = {BACKBONE_KEYS + name for name in self.backbone.state_dict()}
        self._keys_to_ignore_on_save = {*(self._keys_to_ignore_on_save or ()), *frozen}
        if hasattr(self.backbone, "hf_device_map"):
            self.hf_device_map = self.backbone.hf_device_map

    @classmethod
    def from_backbone(
        cls,
        name_or_model: str | os.PathLike | PreTrainedModel,
        reasoner: TartReasoner | str | os.PathLike | None = None,
        *,
        views: str | View | Sequence[str | View] | None = None,
        protocol: str = "stream",
        template: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        layers: int | slice | str | None = None,
        max_length: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        revision: str | None = None,
        **loading_arguments: Any,
    ) -> Self:
        r"""
        Compose a backbone that reads the inputs of this class with a reasoner, in evaluation mode.

        Args:
            name_or_model (`str`, `Path`, `PreTrainedModel` or `SentenceTransformer`):
                Hub id or folder of the backbone, which may be a peft adapter or a repository of sentence-transformers;
                `"mini"`, the small language model inside this package; or a loaded model or `PeftModel`, of which the
                part below a head is taken, frozen and put in evaluation mode. Of a model with several towers only the
                one that reads the inputs of this class is taken. The modules of a `SentenceTransformer`, or of its
                repository, are applied.
            reasoner ([`TartReasoner`], `str` or `Path`, *optional*):
                A reasoner, or where to load one from; the one inside this package when not given.
            views (`str`, [`View`] or `list`, *optional*, defaults to `"default"`):
                The views of each input: `"default"`, those for backbones of this kind, `"plain"`, one forward pass
                without a template, `"best"`, the most accurate whatever they cost, or names of the registry and
                [`View`] objects.
            pooling (`str`, *optional*), normalize (`bool`, *optional*), layers (`int`, `slice` or `str`, *optional*),
            template (`str`, *optional*):
                The only view, in place of `views`. Of those not given a sentence encoder sets the first three; else
                `pooling` is `"mean"`, and `layers` -1 for a reasoner that projects its input and `"all"` for others.
            protocol (`str`, *optional*, defaults to `"stream"`), max_length (`int`, *optional*):
                As in [`TartConfig`]; a sentence encoder sets the second. Images and audio have neither.
            prompt (`str`, *optional*), prompt_name (`str`, *optional*):
                Text that is put before each text, of examples and queries, or its name in the repository of a sentence
                encoder. By default the one that the repository takes by default; `prompt=""` for none. Of the e5
                family it is `"query: "`, which is not in their files: give it here.
            truncate_dim (`int`, *optional*):
                Number of components of a sentence encoder's embedding to keep (Matryoshka embeddings).
            revision (`str`, *optional*):
                Revision of the backbone's repository; for a loaded model it is noted in the config.
            loading_arguments:
                Passed to `AutoModel.from_pretrained`: `dtype` (that of the weights when not given), `device_map`,
                `max_memory`, `attn_implementation`, `quantization_config`, `token`, `cache_dir`, `trust_remote_code`,
                ... Code of the repository runs with `trust_remote_code=True` only. `id2label` or `label2id` name the
                classes of any support set.

        Raises:
            ValueError: When the backbone reads other inputs, is a sentence encoder of modules that this package does
                not have, or needs code of its repository that may not run.
            CorruptFileError, OSError: When its files are damaged, are not safetensors, or do not exist.
        """
        embedding: dict[str, Any] = {"views": views, "protocol": protocol, "template": template, "pooling": pooling}
        embedding.update(normalize=normalize, layers=layers, max_length=max_length, prompt=prompt)
        embedding.update(prompt_name=prompt_name, truncate_dim=truncate_dim)
        return compose(cls, name_or_model, reasoner, embedding, revision=revision, **loading_arguments)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
        r"""
        Load a TART repository or folder: its reasoner, its support set if it has one, and the backbone it refers to.

        Args:
            pretrained_model_name_or_path (`str` or `Path`):
                Hub id or folder.
            backbone (`PreTrainedModel` or `str`, *optional*):
                A backbone, or where to load one from, to use instead of the one that the repository refers to. With a
                support set it must have the weights that embedded it, in any dtype.
            kwargs:
                As in `PreTrainedModel.from_pretrained`. `revision` and `subfolder` are those of this repository;
                `dtype`, `device_map`, `max_memory`, `trust_remote_code` and the like are for the backbone; `token`,
                `cache_dir` and `local_files_only` are for both. With a support set, `dtype` defaults to the one in
                which that was embedded; without one, `views` and the other options of embeddings replace the saved.

        Raises:
            BackboneNotFoundError, BackboneMismatchError: When the backbone cannot be loaded, or is not the one that
                embedded the support set.
            CorruptFileError: When weights or support set are damaged or incomplete, or `config.json` does not have the
                embedding settings of the support set.
            ValueError: When the repository is not a TART repository.
        """
        with explain_failures(pretrained_model_name_or_path):
            return load_composed(cls, pretrained_model_name_or_path, *model_args, **kwargs)

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

    def encode_support(
        self,
        examples: RawExamples | None,
        tokenizer: PreTrainedTokenizerBase,
        *,
        hints: Any = "auto",
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | None = None,
        label_descriptions: Mapping[str, str] | None = None,
        unlabeled: Sequence[Any] | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        keep_texts: bool = False,
        seed: int = 0,
    ) -> SupportSet:
        """Embed labeled examples, and what label hints need.

        Args:
            examples (`list[dict]`, `dict[str, list]` or `datasets.Dataset`):
                The examples, as in [`parse_examples`]; `None` for none, with `candidate_labels`.
            tokenizer (`PreTrainedTokenizerBase`):
                The backbone's tokenizer; for images its image processor, for audio its feature extractor.
            hints (`str`, `Callable`, array, `dict` or `list`, *optional*, defaults to `"auto"`):
                Scores of each class that need no example. `"auto"`: `label_similarity` and `label_likelihood`, as far
                as the names of the classes have a meaning and the backbone can give them. `None`: none. Or one of
                these names; a function `(inputs, label_names) -> scores (n, num_labels)`; the scores of the examples
                as an array; a dict of functions and arrays by names of your own; or a list of any of these.
            candidate_labels (`str` or `list[str]`, *optional*):
                Names of the classes, in place of examples, or in this order beside them.
            hypothesis_template (`str`, *optional*):
                Text around the name of a class, with `{}`; that of the config when not given.
            label_descriptions (`dict[str, str]`, *optional*):
                Descriptions of classes, which take the place of their names in hints. They are not stored.
            unlabeled (`list[str]`, *optional*):
                Texts without labels, by which hints are calibrated: at most 256, drawn by the seed. They are not
                stored.
            batch_size (`int`, *optional*):
                Most inputs of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`), keep_texts (`bool`, *optional*):
                Whether to show progress, and to keep the texts in the support set.
            seed (`int`, *optional*, defaults to 0):
                Seed of the order of the examples in a prompt, for protocols with a prompt, and of the choice of
                unlabeled texts.
        """
        seed, keep_texts = check_seed(seed), as_flag(keep_texts, "keep_texts")
        batching = {"batch_size": batch_size, "progress_bar": as_flag(progress_bar, "progress_bar")}
        parsed = self._parse(examples, candidate_labels, self.chosen_names)
        request = self._request(parsed, hints, hypothesis_template, label_descriptions, unlabeled, seed)
        return self._embed(self.embedder(), parsed, request, tokenizer, keep_texts, **batching, seed=seed).support

    def prepare_examples(
        self,
        examples: RawExamples | None,
        tokenizer: PreTrainedTokenizerBase,
        *,
        hints: Any = "auto",
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | None = None,
        label_descriptions: Mapping[str, str] | None = None,
        unlabeled: Sequence[Any] | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        keep_texts: bool = False,
        cache: EmbeddingCache | None = None,
        max_length: int | None = None,
        is_stored: bool = False,
    ) -> PreparedSupport:
        """Embed and prepare labeled examples: [`encode_support`] and [`prepare_support`] with one pass over a prompt.

        `cache` and `max_length` are as in [`embedder`]. With `is_stored`, for examples that become the support set of
        the model, labels must be those that a user named in `config.id2label`.
        """
        names, embedder = self.chosen_names if is_stored else None, self.embedder(cache, max_length)
        parsed = self._parse(examples, candidate_labels, names)
        request = self._request(parsed, hints, hypothesis_template, label_descriptions, unlabeled)
        batching = {"batch_size": batch_size, "progress_bar": progress_bar}
        return self._embed(embedder, parsed, request, tokenizer, keep_texts, **batching)

    def _parse(self, examples: Any, candidate_labels: Any, names: Any) -> Examples:
        if examples is None and candidate_labels is not None:
            return Examples([], [], parse_candidates(candidate_labels, names))
        return parse_examples(examples, self.config.modality, names, candidate_labels)

    def _request(
        self, parsed: Examples, hints: Any, template: str | None, descriptions: Any, unlabeled: Any, seed: int = 0
    ) -> HintRequest:
        default = getattr(self.config, "hypothesis_template", DEFAULT_HYPOTHESIS)
        template = default if template is None else template
        return parse_request(hints, parsed.label_names, template, descriptions, unlabeled, seed)

    def _embed(
        self, embedder: Embedder, parsed: Examples, request: HintRequest, tokenizer: Any, keep: bool, **options: Any
    ) -> PreparedSupport:
        names, reads_hints = parsed.label_names, self.reasoner.reads_hints
        has_examples = len(parsed.inputs) > 0
        texts = choose_texts(request, names, self.config.modality, embedder.options, reads_hints, has_examples)
        encoder = SupportEncoder(embedder, self.backbone_digest(), request, texts, partial(read_vocabulary, self))
        support, reading = encoder.encode(parsed, tokenizer, keep, **options)
        return self._pack(self.prepare_embedded(support, reading, functions_of(request.given)))

    def _pack(self, prepared: PreparedSupport) -> PreparedSupport:
        """Prepare a support set with packed embeddings, unless they are not smaller or change predictions."""
        packed = prepared.support.pack()
        if packed is None:
            return prepared
        candidate = self.prepare_embedded(packed, prepared.reading, prepared.functions)
        probes, given = draw_probes(packed.embeddings), packed.given_hints
        given = None if given is None else draw_probes(given)
        with torch.no_grad():
            logits, packed_logits = (self.answer(probes, each, given) for each in (prepared, candidate))
        return candidate if is_unchanged(logits, packed_logits) else prepared

    def set_support(self, support: SupportSet | PreparedSupport | None) -> None:
        """Store a support set with the model, or remove it.

        The label names of the config become those of the support set, unless a user set them: then they name the
        classes of any support set.

        Raises:
            BackboneMismatchError: When it was embedded by another backbone, or with other options.
            ValueError: When there are not as many names as classes.
        """
        prepared = support if isinstance(support, PreparedSupport) else None
        support = support.support if isinstance(support, PreparedSupport) else support
        if support is not None:
            check_is_support(support)
            options = support.options if prepared is not None else None
            if options is not None and options.max_length != self.config.embedding_options.max_length:
                self.config.max_length = options.max_length  # given to the pipeline for all of its calls
            self.check_support(support)
        self._store(support, prepared)

    def restore_support(self, support: SupportSet, has_chosen_names: bool) -> None:
        """Store a loaded support set, already compared with the backbone; the next examples keep chosen names."""
        self._store(support)
        if not has_chosen_names:
            self._names_of_examples = config_names(self.config)
        if support.prompt is None and support.phrasing is None:  # which are read with the first query
            self._prepared = self.prepare_embedded(support)

    def _store(self, support: SupportSet | None, prepared: PreparedSupport | None = None) -> None:
        names = self.chosen_names
        if names is not None and support is not None:
            support.check_names(names)
        elif names is None and support is not None:
            names = self._names_of_examples = support.label_names
        elif names is None:
            names = usual_names(len(config_names(self.config)))
        set_config_names(self.config, names)
        self._prepared, self.support = prepared, support

    @property
    def chosen_names(self) -> tuple[str, ...] | None:
        """The names that a user gave the classes, `None` where they are those of the examples or of transformers."""
        names = config_names(self.config)
        return None if are_usual(names) or names == self._names_of_examples else names

    def names_for(self, support: SupportSet) -> tuple[str, ...]:
        """Return the names of the classes of a support set: for the stored one those of the config, if as many."""
        if support is not self.support:
            return support.label_names
        names = config_names(self.config)
        support.check_number_of_names(names)
        return names

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
        scalings, hints = tuple(LayerScaling.fit(view) for view in views), support.hints
        with torch.no_grad():
            scaled = [view[None] for view in scale_views(embeddings, scalings)]
            scores, labels = support.scores(), support.labels.to(device)[None]
            given: dict[str, Tensor] = {}
            if hints is not None and scores is not None:
                given["support_hints"] = as_task(scores, hints.calibration).to(device)
                given["unlabeled_hints"] = as_task(hints.calibration, hints.calibration).to(device)
            state = self.reasoner.prepare(scaled, labels, **given, num_labels=max(2, support.num_labels))
        return PreparedSupport(support, scalings, state, reading, self._token(), functions or {})

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

    def backbone_digest(self) -> BackboneDigest:
        """Return the digest of the backbone as it is now, under the name that the config refers to."""
        digest = BackboneDigest.of(self.backbone)
        return replace(digest, name=self.config.base_model_name_or_path or digest.name)

    def check_support(self, support: SupportSet) -> None:
        """Raise a BackboneMismatchError unless this backbone and the options of this config embedded a support set."""
        support.check_options(self.config.embedding_options)
        if support.digest is not None:
            support.check_backbone(self.backbone_digest())

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
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, check_labels(labels, logits))
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
            `torch.FloatTensor` of shape `(n, num_labels)`: log-probabilities up to a constant, or the log-odds of a
            single label.
        """
        logits = self.reasoner.query(prepared.state, *self._scale(embeddings, prepared, given_hints))[0]
        return logits if prepared.support.num_labels > 1 else logits[:, :1] - logits[:, 1:]

    def explain(self, embeddings: Tensor, prepared: PreparedSupport, given_hints: Tensor | None = None) -> Votes:
        """Return the votes of views and hints, and the influence of examples; arguments are as in [`answer`]."""
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
        hints, scaled = prepared.support.hints, [view[None] for view in scale_views(embeddings, prepared.scalings)]
        if hints is None:
            return scaled, None if given_hints is None else given_hints[None]
        return scaled, as_task(join_given(hints, hints.score(embeddings), given_hints), hints.calibration)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        state_dict: dict[str, Tensor] | None = None,
        is_main_process: bool = True,
        include_backbone: bool = False,
        include_texts: bool = False,
        **kwargs: Any,
    ) -> None:
        r"""
        Save the reasoner, the config and the support set; the backbone stays a reference.

        Args:
            save_directory (`str` or `Path`):
                The folder, made when it does not exist.
            state_dict (`dict`, *optional*), is_main_process (`bool`, *optional*, defaults to `True`):
                Weights to save instead of the model's own, left unchanged, and whether this process writes.
            include_backbone (`bool`, *optional*, defaults to `False`):
                Whether to save the backbone's weights too, as is needed where they were changed after loading.
            include_texts (`bool`, *optional*, defaults to `False`):
                Whether to save the texts of the support set too. With the protocols `vanilla` and `loo` the token ids
                of the prompt are always saved, and the texts can be read from them.
            kwargs:
                As in `PreTrainedModel.save_pretrained`: `push_to_hub`, `repo_id`, `token`, `max_shard_size`, ...

        Raises:
            ValueError: When the backbone has no name to refer to and is not included, or has adapters and is.
            BackboneMismatchError: When the weights of the backbone are not those of the model that it refers to, or
                not those that made the support set.
            OSError: When the disk is full; what was in the folder before stays.
        """
        folder = Path(save_directory)
        if is_main_process:
            check_folder(self, folder)
            check_backbone(self, include_backbone)
        weights = self.state_dict() if state_dict is None else state_dict
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(BACKBONE_KEYS)}
        with self._pushing(folder, kwargs, is_main_process):
            if not is_main_process:
                super().save_pretrained(folder, state_dict=weights, is_main_process=False, **kwargs)
                return
            with staged(folder, OWNED) as stage:
                super().save_pretrained(stage, state_dict=weights, **kwargs)
                config = config_to_save(self, include_backbone)
                config.auto_map = self.write_stub(stage)
                config.save_pretrained(stage)  # over the live one, which transformers has written
                save_parts(self, config, stage, include_texts, kwargs.get("max_shard_size"))
                add_checksums(stage)
                keep_edited_card(stage, folder)

    def model_card(self, facts: CardFacts | None = None, *, stores_texts: bool = False) -> ModelCard:
        """Return the card of this model, with `facts` in place of `self.card_facts` if given."""
        support = self.support
        of_support = (None, False) if support is None else (support.storage, stores_texts, support.hint_facts())
        return classifier_card(self.config, facts or self.card_facts, *of_support)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the reasoner; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        # the traits hold the backbone with its hooks; the copy probes it again
        return {**state_without_capture_hooks(self), "_traits": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        restore(self)


__all__ = ["TartPreTrainedModel"]
