"""Passages read by a backbone: embeddings of texts inside the templates of views."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from transformers_tart.backbones.forward import backbone_max_length, resolve_max_length
from transformers_tart.checks.templates import parse_view_template
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.phrases import Phrasing, Reading
from transformers_tart.embeddings.prompts import Prefix
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.tokenization import check_vocabulary


@dataclass(frozen=True)
class PassageReader:
    """Reader of the views that have templates."""

    encoder: PrefixEncoder  # of all views of the model

    def start(self, tokenizer: PreTrainedTokenizerBase) -> Reading:
        """Write the templates in tokens, and encode their beginnings."""
        return self.open(self.write(tokenizer))

    def write(self, tokenizer: PreTrainedTokenizerBase) -> Phrasing:
        """Write the templates in tokens."""
        traits = self.encoder.traits
        context = resolve_max_length(traits.backbone, tokenizer)
        return Phrasing.of(self.encoder.views, tokenizer, traits.is_causal, context)

    def open(self, phrasing: Phrasing) -> Reading:
        """Encode the beginning of each passage, which all inputs share.

        Raises:
            ValueError: When the phrases are not those of the views, or longer than the backbone reads.
        """
        self._check(phrasing)
        sharing = "auto" if self.encoder.traits.is_causal else "off"
        starts = [passage.phrase.literals[0] for passage in phrasing.passages]
        encoder = replace(self.encoder, prefix_sharing=sharing)
        return Reading(tuple(encoder.start(ids)[0] for ids in starts), phrasing)

    def embed(
        self,
        parts: Sequence[Sequence[Sequence[int]]],
        phrasing: Phrasing,
        prefixes: Sequence[Prefix],
        max_length: int | None = None,
        batcher: Batcher | None = None,
    ) -> dict[int, Tensor]:
        """Embed texts, or texts and their pairs, by token ids: (n, layers, hidden) under the number of each view.

        `prefixes` are the encoded beginnings of the passages of `phrasing`, as in a [`Reading`].
        """
        check_vocabulary(self.encoder.backbone, (ids for part in parts for ids in part))
        found = dict[int, Tensor]()
        for passage, prefix in zip(phrasing.passages, prefixes, strict=True):
            encoder = replace(self.encoder, views=tuple(self.encoder.views[i] for i in passage.views))
            inputs = [phrasing.continuation(passage, self.encoder.views, part, max_length) for part in parts]
            embedded = split_views(encoder.embed(prefix, inputs, batcher), encoder.views)
            found.update(zip(passage.views, embedded, strict=True))
        return found

    def _check(self, phrasing: Phrasing) -> None:
        """Raise a ValueError unless phrases are those of the views, and suit the backbone."""
        traits, views = self.encoder.traits, self.encoder.views
        check_vocabulary(self.encoder.backbone, [[phrasing.largest_id]])
        limit = backbone_max_length(traits.backbone)
        suits = limit is None or (phrasing.context is not None and phrasing.context <= limit)
        for passage in phrasing.passages:
            for number, phrase in zip(passage.views, passage.phrases, strict=True):
                template = views[number].template if number < len(views) else None
                fields = () if template is None else parse_view_template(template)[1]
                suits &= phrase.fields == tuple(int(field == "text_pair") for field in fields)
                suits &= traits.is_causal or phrase == passage.phrase
        if not suits:
            raise ValueError(
                "The support set holds templates that are not those of the views of this model: it was made by "
                "another model, or edited. Encode the examples again with this model."
            )
