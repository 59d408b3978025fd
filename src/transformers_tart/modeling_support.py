"""The part of the composed classifiers that encodes examples and stores them: their support set, and its growth."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from transformers import PreTrainedTokenizerBase

from transformers_tart.backbones.origin import Origin, read_vocabulary
from transformers_tart.checks.arguments import as_flag
from transformers_tart.checks.label_names import (
    are_usual,
    config_names,
    set_config_names,
    set_problem_type,
    usual_names,
)
from transformers_tart.checks.tensors import check_seed
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.hints.given import functions_of
from transformers_tart.hints.requests import choose_texts, parse_request
from transformers_tart.hub.card import CardFacts
from transformers_tart.inputs.candidates import parse_candidates
from transformers_tart.inputs.columns import TableOptions
from transformers_tart.inputs.containers import unpack
from transformers_tart.inputs.examples import Examples, RawExamples, parse_examples
from transformers_tart.inputs.text_options import DEFAULT_HYPOTHESIS
from transformers_tart.modeling_answers import AnsweringModel
from transformers_tart.support import PreparedSupport, SupportSet, check_is_support
from transformers_tart.support.encoding import SupportEncoder
from transformers_tart.support.growing import SupportGrower
from transformers_tart.support.keys import find_examples


class SupportingModel(AnsweringModel):
    """Base of composed classifiers with a support set, which examples make, and are added to and removed from."""

    origin: Origin
    card_facts: CardFacts
    _names_of_examples: tuple[str, ...] | None
    _growth: Any  # the lock of threads that change the support set, of which each takes what the others left

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
        **table: Any,
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
            unlabeled (`list[str]`, a column or a table, *optional*):
                Texts without labels, by which hints are calibrated: at most 256, drawn by the seed. They are not
                stored.
            batch_size (`int`, *optional*):
                Most inputs of a forward pass; as many as a budget of tokens allows when not given.
            progress_bar (`bool`, *optional*, defaults to `False`), keep_texts (`bool`, *optional*):
                Whether to show progress, and to keep the texts in the support set.
            seed (`int`, *optional*, defaults to 0):
                Seed of the order of the examples in a prompt, for protocols with a prompt, and of the choice of
                unlabeled texts.
            table:
                Names of the columns of the examples: `text_column`, `text_pair_column`, `image_column`,
                `audio_column`, `label_column`; and `split`, of a `DatasetDict`.
        """
        prepared = self.prepare_examples(
            examples,
            tokenizer,
            hints=hints,
            candidate_labels=candidate_labels,
            hypothesis_template=hypothesis_template,
            label_descriptions=label_descriptions,
            unlabeled=unlabeled,
            batch_size=batch_size,
            progress_bar=as_flag(progress_bar, "progress_bar"),
            keep_texts=as_flag(keep_texts, "keep_texts"),
            seed=check_seed(seed),
            is_stored=True,
            **table,
        )
        return prepared.support

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
        seed: int = 0,
        cache: EmbeddingCache | None = None,
        max_length: int | None = None,
        is_stored: bool = False,
        **table: Any,
    ) -> PreparedSupport:
        """Embed and prepare labeled examples: [`encode_support`] and [`prepare_support`] with one pass over a prompt.

        `cache` and `max_length` are as in [`embedder`], `table` as in [`encode_support`]. With `is_stored`, for
        examples that become the support set of the model, labels must be those that a user named in
        `config.id2label`.
        """
        embedder, modality = self.embedder(cache, max_length), self.config.modality
        parsed = self._parse(examples, candidate_labels, self.chosen_names if is_stored else None, table)
        default = getattr(self.config, "hypothesis_template", DEFAULT_HYPOTHESIS)
        template = default if hypothesis_template is None else hypothesis_template
        texts = self._read_unlabeled(unlabeled, table)
        request = parse_request(hints, parsed.label_names, template, label_descriptions, texts, seed)
        given = (request, parsed.label_names, modality, embedder.options, self.reasoner.reads_hints)
        of_labels = choose_texts(*given, has_examples=len(parsed.inputs) > 0)
        encoder = SupportEncoder(embedder, self.backbone_digest(), request, of_labels, partial(read_vocabulary, self))
        batching: dict[str, Any] = {"batch_size": batch_size, "progress_bar": progress_bar, "seed": seed}
        support, reading = encoder.encode(parsed, tokenizer, keep_texts, **batching)
        return self._pack(self.prepare_embedded(support, reading, functions_of(request.given)))

    def _parse(
        self, examples: Any, candidate_labels: Any, names: Any, table: Mapping[str, Any], known: Any = None
    ) -> Examples:
        options = TableOptions.of(table, self.config.modality.columns)
        if examples is None and candidate_labels is not None:
            return Examples([], [], parse_candidates(candidate_labels, names))
        return parse_examples(examples, self.config.modality, names, candidate_labels, options, known)

    def _read_unlabeled(self, unlabeled: Any, table: Mapping[str, Any]) -> Any:
        """Return inputs without labels, those inside a table."""
        options = TableOptions.of(table, self.config.modality.columns)
        return unpack(unlabeled, self.config.modality, replace(options, split=None))

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
        if not has_chosen_names and support.label_names == config_names(self.config):  # not edited in config.json
            self._names_of_examples = support.label_names
        if support.prompt is None and support.phrasing is None:  # which are read with the first query
            self._prepared = self.prepare_embedded(support)

    def _store(self, support: SupportSet | None, prepared: PreparedSupport | None = None) -> None:
        with self._growth:
            names = self.chosen_names
            if names is not None and support is not None:
                support.check_names(names)
            elif names is None and support is not None:
                names = self._names_of_examples = support.label_names
            elif names is None:
                names = usual_names(len(config_names(self.config)))
            set_config_names(self.config, names)
            set_problem_type(self.config, support is not None and support.is_multi_label)
            self._prepared, self.support = prepared, support

    def copy_task(self) -> Self:
        """Return a model with the same task on the same backbone and reasoner; what either stores, the other lacks."""
        copied = type(self)(copy.deepcopy(self.config), backbone=self.backbone, reasoner=self.reasoner)
        copied.training, copied.card_facts = self.training, copy.deepcopy(self.card_facts)
        copied.origin, copied.support, copied._prepared = self.origin, self.support, self._prepared
        copied._names_of_examples = self._names_of_examples
        copied.adopt(self.traits)
        return copied

    def add_examples(
        self,
        examples: RawExamples,
        tokenizer: PreTrainedTokenizerBase,
        *,
        hints: Any = None,
        label_descriptions: Mapping[str, str] | None = None,
        unlabeled: Sequence[Any] | None = None,
        cache: EmbeddingCache | None = None,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
        **table: Any,
    ) -> None:
        """Add examples to the stored support set; only these, and the texts of new classes, are embedded.

        Beside candidate labels, the first examples may be of one class; the hints alone decide until there are two.

        Args:
            examples (`list[dict]`, `dict[str, list]` or `datasets.Dataset`), tokenizer (`PreTrainedTokenizerBase`):
                As in [`encode_support`]; one example will do. A new class stands where encoding all examples would
                put it: by the `ClassLabel` feature of the new ones, or sorted; last where the others are not sorted.
            hints (`dict`, `Callable` or array, *optional*):
                Those of the user, where a loaded support set was scored by them.
            label_descriptions (`dict[str, str]`, *optional*), unlabeled (`list`, *optional*):
                Descriptions of new classes, and inputs without labels; without these their hints are calibrated by
                inputs without content.
            cache, batch_size, progress_bar, seed, table:
                As in [`prepare_examples`].

        Raises:
            ValueError: When there is no support set, or a prompt would have to be written anew without its texts.
        """
        batching: dict[str, Any] = {"batch_size": batch_size, "progress_bar": progress_bar, "seed": seed}
        with self._growth:
            grower = SupportGrower.of(self, hints, cache)
            more = self._parse(examples, None, self.chosen_names, table, grower.support.label_names)
            texts = self._read_unlabeled(unlabeled, table)
            grown = grower.add(more, tokenizer, label_descriptions, texts, **batching)
            self.set_support(self._pack(self.prepare_embedded(*grown, functions_of(grower.given))))

    def remove_examples(
        self,
        examples: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
        **table: Any,
    ) -> None:
        """Remove examples from the stored support set; their classes stay.

        Args:
            examples (`int`, `dict`, `list`, an array or a table):
                Their indices, in the order in which they were given, or the examples themselves: texts and labels, of
                which all copies are removed.
            tokenizer (`PreTrainedTokenizerBase`), batch_size, progress_bar, seed, table:
                As in [`add_examples`]; all but the last for protocols with a prompt, which is written anew.

        Raises:
            ValueError: When an example is not there, or those that are left are of fewer than two classes, without
                label hints.
        """
        modality = self.config.modality
        options = TableOptions.of(table, modality.columns)
        with self._growth:
            grower = SupportGrower.of(self)
            removed = find_examples(grower.support, examples, modality, self.chosen_names, options)
            left = sorted(set(range(len(grower.support))) - set(removed))
            taken = grower.take(left, tokenizer, batch_size=batch_size, progress_bar=progress_bar, seed=seed)
            self.set_support(self._pack(self.prepare_embedded(*taken, functions_of(grower.given))))


__all__ = ["SupportingModel"]
