"""The reasoner: predicts labels of query embeddings from labeled support embeddings."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from torch.profiler import record_function
from transformers import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from transformers_tart.checks.arguments import check_kind, shorten
from transformers_tart.checks.tensors import (
    check_hints,
    check_queries,
    check_query_hints,
    check_query_labels,
    check_seed,
    check_support,
    check_weights,
)
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.files import check_whole, staged
from transformers_tart.hub.card import CardFacts, reasoner_card
from transformers_tart.hub.push import CARD_FILE, OWNED_WEIGHTS, HubMixin, keep_edited_card
from transformers_tart.loading.arguments import check_loading
from transformers_tart.loading.auto import check_files
from transformers_tart.loading.checksums import add_checksums, check_sums
from transformers_tart.loading.download import explain_damage, pin_revision, select
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.reasoners import locate
from transformers_tart.reasoners.architectures import ARCHITECTURES
from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.combining import answer, combine, votes
from transformers_tart.reasoners.state import ReasonerState, TartReasonerOutput, Votes
from transformers_tart.reasoners.view_reader import ViewReader
from transformers_tart.reasoners.weighing import Weighing
from transformers_tart.reasoners.weights import align_weights, check_finite, check_headers


class TartReasoner(HubMixin, PreTrainedModel):
    r"""
    A reasoner without backbone, which maps support embeddings, support labels and query embeddings to logits.

    ```python
    >>> reasoner = TartReasoner.from_pretrained("org/tart-reasoner")
    >>> state = reasoner.prepare(support_embeddings, support_labels)  # once
    >>> logits = reasoner.query(state, query_embeddings)  # for each batch
    ```

    Where the same examples are embedded in several ways, each of these views is read alone:

    ```python
    >>> state = reasoner.prepare([support_means, support_last_tokens], support_labels)
    >>> logits = reasoner.query(state, [query_means, query_last_tokens])
    ```

    The better a view predicts the label of each support example from the others, the larger its weight. Label hints,
    scores of each class that need no example, are weighed with them.
    """

    config: TartReasonerConfig
    base_model_prefix = "architecture"
    main_input_name = "query_embeddings"
    auto_map_classes = {"AutoConfig": "TartReasonerConfig", "AutoModel": "TartReasoner"}
    _supports_sdpa = True

    def __init__(self, config: TartReasonerConfig):
        check_kind("config", config, TartReasonerConfig)
        super().__init__(config)
        if config.architecture not in ARCHITECTURES:
            raise ValueError(
                f"Unknown reasoner architecture {shorten(config.architecture)}; choose one of "
                f"{sorted(ARCHITECTURES)}, or update transformers-tart if the reasoner is newer than this version."
            )
        self.architecture: Architecture = ARCHITECTURES[config.architecture](config)
        self.weighing = None if config.weighing_size is None else Weighing(config.weighing_size)
        self.card_facts = CardFacts()
        self.post_init()

    def _initialize_weights(self, module: torch.nn.Module, is_custom_code: bool = False) -> None:
        super()._initialize_weights(module, is_custom_code=False)  # with it, modules of only children are skipped

    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Architecture | Weighing):
            module.init_weights()

    @classmethod
    @one_at_a_time
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
        r"""
        Load a reasoner, in float32 by default; one in float64 computes in that.

        Args:
            pretrained_model_name_or_path (`str` or `Path`):
                Hub id, folder, or `"kernel"`, the name of the reasoner inside this package.
            kwargs:
                Keyword arguments of `PreTrainedModel.from_pretrained`.

        Raises:
            CorruptFileError: When the weights are damaged, incomplete or do not fit the config.
        """
        check_loading(kwargs)
        with_info = kwargs.pop("output_loading_info", False)
        if kwargs.get("config") is None:  # a config that is given was read from a folder or the Hub
            pretrained_model_name_or_path = locate(pretrained_model_name_or_path)
            check_whole(pretrained_model_name_or_path)
        kwargs = {"dtype": torch.float32, **kwargs, "use_safetensors": True}
        kwargs["revision"] = pin_revision(pretrained_model_name_or_path, **kwargs)
        name, hub = os.fspath(pretrained_model_name_or_path), select(kwargs)
        with explain_damage(name):
            if not isinstance(kwargs.get("config"), TartReasonerConfig):
                check_files(name, **hub)
                kwargs["config"] = TartReasonerConfig.from_pretrained(kwargs.get("config") or name, **hub)
            check_headers(name, cls, kwargs["config"], kwargs.get("key_mapping"), kwargs.get("variant"), **hub)
            loaded: Any = super().from_pretrained(name, *model_args, output_loading_info=True, **kwargs)
        model, info = loaded
        check_finite(name, model)
        if model.config.sha256 is not None:
            check_sums(name, model.config.sha256, **hub)
            model.config.sha256 = None  # a digest of the files, while the model may change
        align_weights(model)
        return (model, info) if with_info else model

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save weights, config and a card; a card that the user has edited stays."""
        folder, is_main_process = Path(save_directory), kwargs.get("is_main_process", True)
        if kwargs.get("state_dict") is not None:
            kwargs["state_dict"] = dict(kwargs["state_dict"])  # transformers empties its argument
        with self._pushing(folder, kwargs, is_main_process):
            if not is_main_process:
                super().save_pretrained(folder, **kwargs)
                return
            with staged(folder, OWNED_WEIGHTS) as stage:
                self.config.auto_map = self.write_stub(stage)
                self.model_card().save(stage / CARD_FILE)
                super().save_pretrained(stage, **kwargs)
                add_checksums(stage)
                keep_edited_card(stage, folder)

    def model_card(self, facts: CardFacts | None = None) -> ModelCard:
        """Return the model card."""
        return reasoner_card(self.config, facts or self.card_facts)

    @property
    def _reader(self) -> ViewReader:
        return ViewReader(self.architecture, self.config)

    @property
    def max_support(self) -> int:
        """The largest support set that is read in one pass."""
        return self._reader.max_support

    @property
    def max_classes(self) -> int | None:
        """The most classes that are read in one pass, beyond which they are read one-vs-rest; `None` for no limit."""
        return self._reader.max_classes

    @property
    def reads_hints(self) -> bool:
        """The presence of weights for label hints."""
        return self.weighing is not None

    def prepare(
        self,
        support_embeddings: Tensor | Sequence[Tensor],
        support_labels: Tensor,
        support_hints: Tensor | None = None,
        unlabeled_hints: Tensor | None = None,
        num_labels: int | None = None,
        seed: int = 0,
        support_weights: Tensor | None = None,
    ) -> ReasonerState:
        """Encode a support set.

        Args:
            support_embeddings (`torch.FloatTensor` of shape `(batch, k, dim)`, or a list or tuple of them):
                Embeddings of the labeled examples; several tensors are views of them, whose `dim` may differ.
            support_labels (`torch.LongTensor` of shape `(batch, k)`):
                Their labels, from 0.
            support_hints (`torch.FloatTensor` of shape `(batch, k, num_hints, num_labels)`, *optional*):
                Scores of each class that need no example, the larger, the more likely; of any scale. NaN where a hint
                is silent about a class. With hints, k may be 0.
            unlabeled_hints (`torch.FloatTensor` of shape `(batch, m, num_hints, num_labels)`, *optional*):
                Hints of inputs without labels or without content, from which centers and scales are estimated too.
            num_labels (`int`, *optional*):
                Number of classes; that of the hints, or one more than the largest label, when not given.
            seed (`int`, *optional*, defaults to 0):
                Seed of the random orders, where the config averages over `num_orders` of them.
            support_weights (`torch.FloatTensor` of shape `(batch, k)`, *optional*):
                Weights of the examples; one of weight 2 counts as two copies of it.

        Returns:
            [`ReasonerState`]: the encoded support set, for [`TartReasoner.query`].

        Raises:
            ValueError: On shapes that do not match, fewer than two classes, embeddings that are not finite or all
                equal, or hints or weights for a reasoner that does not read them.
            TypeError: On an argument of another type.
        """
        hints, unlabeled, num_labels = check_hints(support_hints, unlabeled_hints, support_labels, num_labels)
        if hints is not None and self.weighing is None:
            other = 'TartReasoner.from_pretrained("kernel")'
            raise ValueError(f"This reasoner has no weights for label hints: leave the hints out, or take {other}.")
        seed, dtype, has_hints = check_seed(seed), torch.promote_types(self.dtype, torch.float32), hints is not None
        views, labels, num_labels = check_support(support_embeddings, support_labels, num_labels, has_hints, dtype)
        weights = check_weights(support_weights, labels, dtype)
        states = tuple(self._reader.prepare(view, labels, num_labels, seed, weights) for view in views)
        return combine(self.weighing, states, labels, hints, unlabeled, num_labels, weights)

    @record_function("tart/reasoner")
    def query(
        self,
        state: ReasonerState,
        query_embeddings: Tensor | Sequence[Tensor],
        query_hints: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of queries: log-probabilities up to a constant.

        Args:
            state ([`ReasonerState`]):
                Result of [`TartReasoner.prepare`].
            query_embeddings (`torch.FloatTensor` of shape `(batch, n, dim)`, or a list or tuple of them):
                Embeddings of the queries, which do not attend to each other, in the views of the support set.
            query_hints (`torch.FloatTensor` of shape `(batch, n, num_hints, num_labels)`, *optional*):
                Their hints, the same as those of the support set.

        Returns:
            `torch.FloatTensor` of shape `(batch, n, num_labels)`: float32, or float64 of a reasoner in that.

        Raises:
            ValueError: On other views or hints, another batch or width than the support set's, or embeddings that are
                not finite.
            TypeError: On an argument of another type.
        """
        queries, hints = self._check_queries(state, query_embeddings, query_hints)
        if not is_traced() and queries[0].shape[1] == 0:
            return queries[0].new_zeros(state.batch, 0, state.num_labels)
        return answer(state, self._query_views(state, queries), hints)

    def explain(
        self,
        state: ReasonerState,
        query_embeddings: Tensor | Sequence[Tensor],
        query_hints: Tensor | None = None,
    ) -> Votes:
        """Return the parts of the answers of [`TartReasoner.query`], whose arguments are these."""
        queries, hints = self._check_queries(state, query_embeddings, query_hints)
        influence = [
            self._reader.influence(view, query, state.num_labels) if view.parts else None
            for view, query in zip(state.views, queries, strict=True)
        ]
        return votes(state, self._query_views(state, queries), hints, influence)

    def _check_queries(
        self, state: ReasonerState, embeddings: Tensor | Sequence[Tensor], hints: Tensor | None
    ) -> tuple[list[Tensor], Tensor | None]:
        check_kind("state", state, ReasonerState)
        dims, dtype = [view.dim for view in state.views], torch.promote_types(self.dtype, torch.float32)
        queries = check_queries(embeddings, state.batch, dims, dtype)
        count = 0 if state.combination is None else state.combination.hints.shape[1]
        shape = (state.batch, queries[0].shape[1], count, state.num_labels)
        return queries, check_query_hints(hints, shape)

    def _query_views(self, state: ReasonerState, queries: Sequence[Tensor]) -> list[Tensor]:
        """Return logits (batch, n, num_labels) of each view that has examples."""
        pairs = zip(state.views, queries, strict=True)
        return [self._reader.query(view, query, state.num_labels) for view, query in pairs if view.parts]

    @can_return_tuple
    def forward(
        self,
        support_embeddings: Tensor | Sequence[Tensor],
        support_labels: Tensor,
        query_embeddings: Tensor | Sequence[Tensor],
        query_labels: Tensor | None = None,
        num_labels: int | None = None,
        support_hints: Tensor | None = None,
        query_hints: Tensor | None = None,
        unlabeled_hints: Tensor | None = None,
    ) -> TartReasonerOutput:
        r"""
        Call [`TartReasoner.prepare`] and [`TartReasoner.query`], whose other arguments are as there.

        Args:
            query_labels (`torch.LongTensor` of shape `(batch, n)`, *optional*):
                Labels of the queries, from which the loss is computed.
        """
        state = self.prepare(support_embeddings, support_labels, support_hints, unlabeled_hints, num_labels)
        logits = self.query(state, query_embeddings, query_hints)
        if query_labels is None:
            return TartReasonerOutput(logits=logits)
        query_labels = check_query_labels(query_labels, logits.shape[:2], logits.shape[2])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), query_labels.flatten())
        return TartReasonerOutput(loss=loss, logits=logits)
