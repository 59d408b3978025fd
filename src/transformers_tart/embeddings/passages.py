"""Passages read by a backbone: embeddings of texts inside the templates of views."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from transformers_tart.backbones.forward import resolve_max_length
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.phrases import Phrasing, Reading
from transformers_tart.embeddings.shared_prefix import PrefixEncoder
from transformers_tart.embeddings.views import split_views
from transformers_tart.inputs.tokenization import check_vocabulary


@dataclass(frozen=True)
class PassageReader:
    """Reader of the views that have templates."""

    encoder: PrefixEncoder  # of all views of the model

    def start(self, tokenizer: PreTrainedTokenizerBase) -> Reading:
        """Write the templates in tokens, and encode their beginnings."""
        context = resolve_max_length(self.encoder.traits.backbone, tokenizer)
        is_causal = self.encoder.traits.is_causal
        return self.open(Phrasing.of(self.encoder.views, tokenizer, is_causal, context))

    def open(self, phrasing: Phrasing) -> Reading:
        """Encode the beginning of each passage, which all inputs share."""
        check_vocabulary(self.encoder.backbone, [[phrasing.largest_id]])
        sharing = "auto" if self.encoder.traits.is_causal else "off"
        starts = [passage.phrase.literals[0] for passage in phrasing.passages]
        encoder = replace(self.encoder, prefix_sharing=sharing)
        return Reading(tuple(encoder.start(ids)[0] for ids in starts), phrasing)

    def embed(
        self,
        parts: Sequence[Sequence[Sequence[int]]],
        reading: Reading,
        max_length: int | None = None,
        batcher: Batcher | None = None,
    ) -> dict[int, Tensor]:
        """Embed texts, or texts and their pairs, by token ids: (n, layers, hidden) under the number of each view."""
        check_vocabulary(self.encoder.backbone, (ids for part in parts for ids in part))
        found, phrasing = dict[int, Tensor](), reading.phrasing or Phrasing(())
        for passage, prefix in zip(phrasing.passages, reading.prefixes, strict=True):
            encoder = replace(self.encoder, views=tuple(self.encoder.views[i] for i in passage.views))
            inputs = [phrasing.continuation(passage, self.encoder.views, part, max_length) for part in parts]
            embedded = split_views(encoder.embed(prefix, inputs, batcher), encoder.views)
            found.update(zip(passage.views, embedded, strict=True))
        return found
