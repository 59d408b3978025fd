"""The reasoner: predicts labels of query embeddings from labeled support embeddings."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from torch import Tensor
from torch.profiler import record_function
from transformers import PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from transformers_tart.checks.arguments import check_kind, shorten
from transformers_tart.checks.tensors import check_queries, check_query_labels, check_seed, check_support
from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.files import check_whole, staged
from transformers_tart.hub.card import CardFacts, reasoner_card
from transformers_tart.hub.push import CARD_FILE, OWNED_WEIGHTS, HubMixin, keep_edited_card
from transformers_tart.inputs.balance import balanced_subsets, seeded_orders
from transformers_tart.loading.arguments import check_loading
from transformers_tart.loading.auto import check_files
from transformers_tart.loading.checksums import add_checksums, check_sums
from transformers_tart.loading.download import explain_damage, pin_revision, select
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.projection import Projection, fit_projection
from transformers_tart.reasoners import locate
from transformers_tart.reasoners.architectures import ARCHITECTURES
from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.mixing import mix, weigh_views
from transformers_tart.reasoners.state import ReasonerState, ViewState
from transformers_tart.reasoners.weights import align_weights, check_finite, check_headers


@dataclass
class TartReasonerOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Cross-entropy of `query_labels`, in nats, when they are given.
        logits (`torch.FloatTensor` of shape `(batch, n, num_labels)`):
            Log-probabilities up to a constant.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


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

    The probabilities of the views are averaged. The better a view predicts the label of each support example from
    the others, the larger its weight.
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
        self.card_facts = CardFacts()
        self.post_init()

    def _initialize_weights(self, module: torch.nn.Module, is_custom_code: bool = False) -> None:
        # with is_custom_code, transformers skips modules that have only children, such as the architecture
        super()._initialize_weights(module, is_custom_code=False)

    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Architecture):
            module.init_weights()

    @classmethod
    @one_at_a_time
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *model_args: Any, **kwargs: Any) -> Any:
        r"""
        Load a reasoner, in float32 by default.

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
    def max_support(self) -> int:
        """The largest support set that is read in one pass."""
        return min(self.config.max_support, self.architecture.max_support or self.config.max_support)

    @property
    def max_classes(self) -> int | None:
        """The most classes that are read in one pass, beyond which they are read one-vs-rest; `None` for no limit."""
        limits = [m for m in (self.config.max_classes, self.architecture.max_classes) if m is not None]
        return min(limits, default=None)

    def prepare(
        self,
        support_embeddings: Tensor | Sequence[Tensor],
        support_labels: Tensor,
        num_labels: int | None = None,
        seed: int = 0,
    ) -> ReasonerState:
        """Encode a support set.

        Args:
            support_embeddings (`torch.FloatTensor` of shape `(batch, k, dim)`, or a list or tuple of them):
                Embeddings of the labeled examples; several tensors are views of them, whose `dim` may differ.
            support_labels (`torch.LongTensor` of shape `(batch, k)`):
                Their labels, from 0.
            num_labels (`int`, *optional*):
                Number of classes; one more than the largest label when not given.
            seed (`int`, *optional*, defaults to 0):
                Seed of the random orders, where the config averages over `num_orders` of them.

        Returns:
            [`ReasonerState`]: the encoded support set, for [`TartReasoner.query`].

        Raises:
            ValueError: On shapes that do not match, fewer than two classes, or embeddings that are not finite or all
                equal.
            TypeError: On an argument of another type.
        """
        views, support_labels, num_labels = check_support(support_embeddings, support_labels, num_labels)
        seed = check_seed(seed)
        batch, size = support_labels.shape
        states = tuple(self._prepare_view(view, support_labels, num_labels, seed) for view in views)
        log_weights = weigh_views(torch.stack([state.log_likelihood for state in states]), size)
        return ReasonerState(num_labels, self._is_one_vs_rest(num_labels), batch, states, log_weights)

    def _is_one_vs_rest(self, num_labels: int) -> bool:
        return self.max_classes is not None and num_labels > self.max_classes

    def _prepare_view(self, embeddings: Tensor, labels: Tensor, num_labels: int, seed: int) -> ViewState:
        """Encode embeddings (batch, k, dim) with labels (batch, k), in subsets where there are too many."""
        batch, size, dim = embeddings.shape
        one_vs_rest = self._is_one_vs_rest(num_labels)
        parts, weights, log_likelihood = [], [], embeddings.new_zeros(batch)
        subsets = balanced_subsets(embeddings, labels, self.max_support)
        for index in [order for subset in subsets for order in seeded_orders(subset, self.config.num_orders, seed)]:
            chosen, targets = embeddings.gather(1, index[..., None].expand(-1, -1, dim)), labels.gather(1, index)
            projection = fit_projection(self.config.projection or "none", self.config.num_components, chosen)
            chosen = projection.transform(chosen)
            if one_vs_rest:
                chosen = chosen.repeat_interleave(num_labels, dim=0)
                targets = torch.nn.functional.one_hot(targets, num_labels).transpose(1, 2).flatten(0, 1)
            state = self.architecture.prepare(chosen, targets, 2 if one_vs_rest else num_labels)
            parts.append((projection, state))
            weights.append(index.shape[1] / size / self.config.num_orders)
            found = self.architecture.log_likelihood(state)
            if found is not None:  # the mean over the binary tasks, if there are any
                log_likelihood = log_likelihood + weights[-1] * found.view(batch, -1).mean(1)
        return ViewState(dim, tuple(parts), tuple(weights), log_likelihood)

    @record_function("tart/reasoner")
    def query(self, state: ReasonerState, query_embeddings: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the logits of queries: log-probabilities up to a constant.

        Args:
            state ([`ReasonerState`]):
                Result of [`TartReasoner.prepare`].
            query_embeddings (`torch.FloatTensor` of shape `(batch, n, dim)`, or a list or tuple of them):
                Embeddings of the queries, which do not attend to each other, in the views of the support set.

        Returns:
            `torch.FloatTensor` of shape `(batch, n, num_labels)`, float32.

        Raises:
            ValueError: On other views, another batch or width than the support set's, or embeddings that are not
                finite.
            TypeError: On an argument of another type.
        """
        check_kind("state", state, ReasonerState)
        queries = check_queries(query_embeddings, state.batch, [view.dim for view in state.views])
        if not is_traced() and queries[0].shape[1] == 0:
            return queries[0].new_zeros(state.batch, 0, state.num_labels)
        logits = [self._query_view(state, *pair) for pair in zip(state.views, queries, strict=True)]
        return mix(logits, state.log_weights.unbind()) if len(logits) > 1 else logits[0]

    def _query_view(self, state: ReasonerState, view: ViewState, embeddings: Tensor) -> Tensor:
        logits = [self._query_part(state, *part, embeddings) for part in view.parts]
        return mix(logits, [math.log(weight) for weight in view.weights]) if len(logits) > 1 else logits[0]

    def _query_part(self, state: ReasonerState, projection: Projection, part: Any, embeddings: Tensor) -> Tensor:
        embeddings = projection.transform(embeddings)
        if not state.one_vs_rest:
            return self.architecture.query(part, embeddings)
        logits = self.architecture.query(part, embeddings.repeat_interleave(state.num_labels, dim=0))
        log_probability = torch.log_softmax(logits, dim=-1)[..., 1]
        return log_probability.unflatten(0, (-1, state.num_labels)).transpose(1, 2)

    @can_return_tuple
    def forward(
        self,
        support_embeddings: Tensor | Sequence[Tensor],
        support_labels: Tensor,
        query_embeddings: Tensor | Sequence[Tensor],
        query_labels: Tensor | None = None,
        num_labels: int | None = None,
    ) -> TartReasonerOutput:
        r"""
        Call [`TartReasoner.prepare`] and [`TartReasoner.query`], whose other arguments are as there.

        Args:
            query_labels (`torch.LongTensor` of shape `(batch, n)`, *optional*):
                Labels of the queries, from which the loss is computed.
        """
        logits = self.query(self.prepare(support_embeddings, support_labels, num_labels), query_embeddings)
        loss = None
        if query_labels is not None:
            query_labels = check_query_labels(query_labels, logits.shape[:2], logits.shape[2])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), query_labels.flatten())
        return TartReasonerOutput(loss=loss, logits=logits)
