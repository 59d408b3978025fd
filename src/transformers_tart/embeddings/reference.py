"""The published procedure, to the letter: one text and one whole prompt at a time, in the order the paper's code used.

For comparison alone: it is slow, binary, and finds the label words by their token ids, so that a text that holds one
corrupts its spans. It follows the code published with arXiv 2306.07536 (section 4.1, June 2023; HazyResearch/TART).
For images and recordings that is `compute_pca` in `src/tart/embed_utils.py`, and the concatenation in
`src/eval/eval_speech_image.py` and `Tart.evaluate`: the reasoner was trained on 16 dimensions, images and recordings
get 8 components, and x becomes [x, x].
"""

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import input_device
from transformers_tart.inputs import read_image
from transformers_tart.inputs.modality import Modality
from transformers_tart.inputs.texts import Text
from transformers_tart.projection import WhitenedPCA


LABEL_WORDS = ("negative", "positive")
MAX_CHARACTERS = 100
MAX_TOKENS = 2048
SEED = 42
N_COMPONENTS = 8
COPIES = 2


class PublishedProcedure:
    """Embeddings of a support set and queries by the published code.

    The backbone is a causal language model, with or without its head, in whose tokens " negative" and " positive"
    begin unlike. The seed determines the order of the prompt.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        seed: int = SEED,
        max_characters: int = MAX_CHARACTERS,
    ):
        self.backbone, self.tokenizer = backbone, copy.deepcopy(tokenizer)
        self.tokenizer.truncation_side = "left"
        self.seed, self.max_characters = seed, max_characters
        self.label_tokens = torch.tensor([self.tokenizer(f" {word}")["input_ids"][0] for word in LABEL_WORDS])

    def embed(
        self, protocol: str, texts: Sequence[Text], labels: Sequence[int], queries: Sequence[Text]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return support (k, hidden) and query (n, hidden) embeddings, and labels in the order of the support rows."""
        cut = [text.strip()[: self.max_characters] for text in (*texts, *queries) if isinstance(text, str)]
        if len(cut) < len(texts) + len(queries) or not set(labels) <= {0, 1}:
            raise ValueError("reference=True repeats the published procedure: single texts of the classes 0 and 1.")
        known, asked = cut[: len(texts)], cut[len(texts) :]
        if protocol == "stream":
            return self._alone(known), self._alone(asked), torch.tensor(labels)
        order = list(range(len(texts)))
        random.Random(self.seed).shuffle(order)
        blocks = [f"Sentence: {known[i]}\nLabel: {LABEL_WORDS[labels[i]]}\n" for i in order]
        support = self._together(blocks) if protocol == "vanilla" else self._each_last(blocks)
        prompt = "".join(blocks)
        query = [self._last_span(f"{prompt}Sentence: {text}", closed=False) for text in asked]
        return support, torch.stack(query), torch.tensor([labels[i] for i in order])

    def _alone(self, texts: Sequence[str]) -> Tensor:
        """Take the mean over all tokens of each text, for `stream`."""
        ids = [self.tokenizer([text])["input_ids"][0] for text in texts]
        return torch.stack([self._hidden(torch.tensor(row)).mean(0) for row in ids])

    def _together(self, blocks: Sequence[str]) -> Tensor:
        """Take the mean over the tokens between one label word and the next, all in one prompt, for `vanilla`."""
        ids = self._prompt_ids("".join(blocks))
        ends = self._label_places(ids)
        if len(ends) != len(blocks):
            raise ValueError(
                f"The prompt of {len(blocks)} examples holds {len(ends)} label words: it is longer than {MAX_TOKENS} "
                "tokens, or a text holds a label word. Give fewer or shorter examples."
            )
        hidden = self._hidden(ids)
        starts = [0, *(end + 1 for end in ends[:-1])]
        return torch.stack([hidden[start:end].mean(0) for start, end in zip(starts, ends, strict=True)])

    def _each_last(self, blocks: Sequence[str]) -> Tensor:
        """Write for each example a prompt in which it comes after all the others, for `loo`."""
        prompts = ["".join([*blocks[:i], *blocks[i + 1 :], blocks[i]]) for i in range(len(blocks))]
        return torch.stack([self._last_span(prompt, closed=True) for prompt in prompts])

    def _last_span(self, prompt: str, closed: bool) -> Tensor:
        """Take the mean over the tokens after the last label word or, of a closed example, between the last two."""
        ids = self._prompt_ids(prompt)
        places = self._label_places(ids)
        start, end = (places[-2] + 1, places[-1]) if closed else (places[-1] + 1, len(ids))
        return self._hidden(ids)[start:end].mean(0)

    def _prompt_ids(self, prompt: str) -> Tensor:
        return torch.tensor(self.tokenizer(prompt, truncation=True, max_length=MAX_TOKENS)["input_ids"])

    def _label_places(self, ids: Tensor) -> list[int]:
        if self.label_tokens[0] == self.label_tokens[1]:
            raise ValueError(
                f'"{LABEL_WORDS[0]}" and "{LABEL_WORDS[1]}" begin with the same token in this tokenizer, so that the '
                "published search for label words finds none; leave reference=True out."
            )
        return torch.isin(ids, self.label_tokens).nonzero()[:, 0].tolist()

    @torch.no_grad()
    def _hidden(self, ids: Tensor) -> Tensor:
        """Return the last hidden states (length, hidden) float32, on the CPU."""
        output = self.backbone(input_ids=ids[None].to(self.backbone.device), output_hidden_states=True)
        return output.hidden_states[-1][0].float().cpu()


@torch.no_grad()
def published_mean(tower: PreTrainedModel, processor: Any, modality: Modality, item: object) -> Tensor:
    """Return the mean (hidden,) of the last hidden states of one input, on the CPU."""
    if modality.is_padded and modality.read is not None:
        inputs = modality.read(processor, item, "A recording")[tower.main_input_name][0]
    else:
        size = tower.config.image_size
        square = read_image(item, "An image").resize((size, size), Resampling.BILINEAR)
        gray = torch.from_numpy(np.array(square.convert("L"))).float() / 255
        inputs = gray.expand(3, -1, -1)
    batch = {tower.main_input_name: inputs[None].to(input_device(tower), tower.dtype)}
    return tower(**batch).last_hidden_state[0].float().mean(0).cpu()


def published_projection(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Project (k, hidden) and (n, hidden) on 8 whitened components, twice side by side: (k, 16) and (n, 16) float32.

    The projection is fitted on the support set alone. The published code whitens the components by a rotation that
    changes nothing, for they are uncorrelated; it takes them from scikit-learn 1.0.2, which computes them by random
    projections above 500 dimensions and chooses signs by the embeddings. These are exact, as in [`WhitenedPCA`].
    """
    if support.dim() != 2 or query.dim() != 2 or support.shape[1] != query.shape[1]:
        raise ValueError(
            f"support is {tuple(support.shape)} and query is {tuple(query.shape)}; they must be (k, hidden) and "
            "(n, hidden)."
        )
    if len(support) <= N_COMPONENTS or support.shape[1] < N_COMPONENTS:
        raise ValueError(
            f"The support set has {len(support)} embeddings of {support.shape[1]} dimensions; the published "
            f"projection needs more than {N_COMPONENTS} of at least {N_COMPONENTS}. Give more examples."
        )
    projection = WhitenedPCA(N_COMPONENTS).fit(support)
    known, asked = (torch.cat([projection.transform(x)] * COPIES, dim=-1) for x in (support, query))
    return known, asked
