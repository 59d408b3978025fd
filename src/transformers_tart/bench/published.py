"""The published procedure (arXiv 2306.07536, sections 3.2 and 4), item by item as in its code."""

import re
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.bench.timing import Meter
from transformers_tart.embeddings.reference import MAX_TOKENS, PublishedProcedure
from transformers_tart.reasoners.architectures.gpt2 import GPT2Architecture


LABEL = re.compile(r"\nLabel: \w+(?=\n)")


def whiten(support: Tensor, queries: Tensor, n_components: int) -> tuple[Tensor, Tensor]:
    """Project on the principal components of the support set, and whiten, on the CPU."""
    from sklearn.decomposition import PCA

    pca = PCA(n_components, random_state=0).fit(support.cpu().numpy())
    known, new = (pca.transform(rows.cpu().numpy()) for rows in (support, queries))
    values, vectors = np.linalg.eigh(np.cov(known, rowvar=False))
    matrix = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
    center = known.mean(0)
    known, new = (torch.from_numpy((rows - center) @ matrix).float().to(support.device) for rows in (known, new))
    return known, new


@torch.no_grad()
def predict_one_by_one(
    architecture: GPT2Architecture,
    support: Tensor,
    labels: Tensor,
    queries: Tensor,
    chosen: Sequence[int],
    meter: Meter,
) -> Tensor:
    """Predict each chosen query by a run of the head on the whole sequence of the support set and the query.

    Returns:
        `torch.FloatTensor` of shape `(len(chosen),)`: probabilities of the second class.
    """
    known, new = whiten(support, queries, architecture.input_dim)
    asked = torch.cat([labels, labels.new_zeros(1)])[None]  # the label of the query is masked
    probabilities = []
    with meter.sample(len(chosen), len(queries)):
        for i in chosen:
            sequence = torch.cat([known, new[i : i + 1]])[None]
            probabilities.append(torch.sigmoid(architecture.sequence_logits(sequence, asked)[0, -1]).item())
    return torch.tensor(probabilities)


class SampledProcedure(PublishedProcedure):
    """The published protocols with only some of their forward passes; the others return zeros.

    `groups` are groups of forward passes of equal cost, in order: the size of each, and the indices that are computed.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        max_characters: int,
        groups: Sequence[tuple[int, Collection[int]]],
        meter: Meter,
    ):
        super().__init__(backbone, tokenizer, seed, max_characters)
        self.calls = iter([(i in made, len(made), total) for total, made in groups for i in range(total)])
        self.meter = meter
        self.places: list[int] = []

    def _prompt_ids(self, prompt: str) -> Tensor:
        encoded = self.tokenizer(prompt, truncation=True, max_length=MAX_TOKENS)
        # the published search needs label words of one token, which not every tokenizer has
        places = [encoded.char_to_token(match.end() - 1) for match in LABEL.finditer(prompt)]
        self.places = [place for place in places if place is not None]
        return torch.tensor(encoded["input_ids"])

    def _label_places(self, ids: Tensor) -> list[int]:
        return self.places

    def _hidden(self, ids: Tensor) -> Tensor:
        is_made, made, total = next(self.calls)
        if not is_made:
            return torch.zeros(len(ids), self.backbone.config.get_text_config().hidden_size)
        with self.meter.sample(made, total):
            return super()._hidden(ids)


__all__ = ["SampledProcedure", "predict_one_by_one", "whiten"]
