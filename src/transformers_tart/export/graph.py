"""Fitted tasks as functions of tensors alone, which can be traced: the support set and the templates are constants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import run_views, text_encoder, without_cache
from transformers_tart.embeddings.phrases import Passage
from transformers_tart.embeddings.pooling import pool_rows, pool_tokens, stack_layers
from transformers_tart.embeddings.prefix_strategies import additive_masks, has_linear_biases
from transformers_tart.embeddings.views import join_views, normalized
from transformers_tart.inputs.views import View
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.reasoners.kv_cache import accepts
from transformers_tart.support import PreparedSupport


class FittedTask(nn.Module):
    """A composed model with its support set."""

    def __init__(self, model: TartPreTrainedModel, prepared: PreparedSupport):
        super().__init__()
        self.model, self.prepared = model, prepared
        self.views = model.config.embedding_options.views

    def answer(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Return logits and probabilities (n, num_labels) of embeddings (n, layers of all views, hidden)."""
        logits = self.model.answer(normalized(embeddings, self.views), self.prepared)
        return {"logits": logits, "probabilities": logits.sigmoid() if self.is_alone else logits.softmax(-1)}

    @property
    def is_alone(self) -> bool:
        """`True` where each label has a probability on its own."""
        return self.prepared.support.num_labels == 1 or self.prepared.support.is_multi_label


class ImageTask(FittedTask):
    """A fitted task of images."""

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Classify processed images (n, channels, height, width)."""
        return self.answer(self.model.embedder().pool_batch({"pixel_values": pixel_values}, self.views))


class TextTask(FittedTask):
    """A fitted task of texts, with the special tokens of their tokenizer."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Classify token ids (n, length), padded on either side."""
        mask = attention_mask.long()
        batch = dict(zip(("input_ids", "attention_mask"), pack([input_ids, mask], mask), strict=True))
        return self.answer(pool_rows(self.model.backbone, batch, self.views))


class PassageTask(FittedTask):
    """A fitted task of texts that are read in templates; their token ids are without special tokens."""

    def __init__(self, model: TartPreTrainedModel, prepared: PreparedSupport):
        super().__init__(model, prepared)
        reading = prepared.reading
        assert reading is not None
        phrasing = reading.phrasing
        assert phrasing is not None
        can_fork = not has_linear_biases(model.backbone)
        self.layouts = [
            Layout(part, phrasing.room(passage.phrase, model.config.max_length), phrasing.truncation_side)
            for passage, prefix in zip(phrasing.passages, reading.prefixes, strict=True)
            for part in ([passage] if can_fork and prefix.strategy == "packed" else passage.straight())
        ]

    @property
    def room(self) -> int | None:
        """Most tokens of a text that are read."""
        rooms = [layout.room for layout in self.layouts if layout.room is not None]
        return max(rooms) if len(rooms) == len(self.layouts) else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Classify token ids (n, length), padded on either side."""
        mask, found = attention_mask.long(), dict[int, Tensor]()
        for layout in self.layouts:
            found |= self._embed(layout, *pack([input_ids, mask], mask))
        return self.answer(join_views([found[i] for i in range(len(self.views))]))

    def _embed(self, layout: "Layout", ids: Tensor, mask: Tensor) -> dict[int, Tensor]:
        """Return embeddings (n, layers, hidden) by the numbers of their views, of right-padded ids (n, length)."""
        ids, mask = layout.cut(ids, mask)
        encoder, views = text_encoder(self.model.backbone), [self.views[i] for i in layout.views]
        states = run_views(encoder, views, **layout.fill(encoder, ids, mask), **without_cache(encoder))
        return {
            view: stack_layers([layout.pool(i, views[i], hidden, mask) for hidden in states[i]])
            for i, view in enumerate(layout.views)
        }


@dataclass(frozen=True)
class Layout:
    """The tokens of a passage: literals with a text between each two, then the endings one after another."""

    passage: Passage
    room: int | None  # most tokens of a text
    side: str  # on which longer texts are cut

    @property
    def views(self) -> tuple[int, ...]:
        """The numbers of the views."""
        return self.passage.views

    @property
    def endings(self) -> list[tuple[int, ...]]:
        """The tokens that follow those that all phrases share."""
        return [(*each.literals[-1][self.passage.num_shared :], *each.end) for each in self.passage.read]

    def cut(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Return right-padded ids and mask (n, length), of which only so many as there is room for are 1."""
        if self.room is None:
            return [ids, mask]
        place = mask.cumsum(1)
        if self.side == "left":
            place = mask.sum(1, keepdim=True) - place + 1
        mask = mask * (place <= self.room)
        return pack([ids, mask], mask)

    def fill(self, backbone: PreTrainedModel, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Return inputs of a backbone: passages around texts (n, length), each ending blind to those before it."""
        first, endings = self.passage.read[0], self.endings
        described = [_describe(first.literals[0], ids)]
        for literal in (*first.literals[1:-1], first.literals[-1][: self.passage.num_shared]):
            described += [torch.stack([ids, mask, *[torch.zeros_like(ids)] * 2]), _describe(literal, ids)]
        for number, ending in enumerate(endings):
            described.append(_describe(ending, ids, number + 1, sum(map(len, endings[:number]))))
        columns = torch.cat(described, dim=2).unbind()
        tokens, valid, endings_of, offset = pack(columns, columns[1])
        if len(endings) == 1:
            return {"input_ids": tokens, "attention_mask": valid}
        place = torch.arange(tokens.shape[1], device=ids.device)
        visible = (place[:, None] >= place)[None] & (valid[:, None] > 0)
        visible = visible & ((endings_of[:, None] == 0) | (endings_of[:, :, None] == endings_of[:, None]))
        positions = place - offset
        inputs = {"input_ids": tokens, "attention_mask": additive_masks(backbone, visible, positions, positions)}
        return {**inputs, **({"position_ids": positions} if accepts(backbone, "position_ids") else {})}

    def pool(self, index: int, view: View, hidden: Tensor, mask: Tensor) -> Tensor:
        """Pool hidden states (n, length, hidden) by the view at an index, around texts of a mask (n, text length)."""
        phrase, shared = self.passage.phrases[index], self.passage.num_shared
        before, copies = sum(map(len, phrase.literals[:-1])), len(phrase.fields)
        if view.pooling == "last":
            last = before + len(phrase.literals[-1]) - 1
            if len(phrase.literals[-1]) > shared:
                last += sum(map(len, self.endings[: self.passage.owners[index]]))
            return hidden[torch.arange(hidden.shape[0]), last + copies * mask.sum(1)].float()
        begin = before + (copies - 1) * mask.sum(1, keepdim=True)
        span = (begin + torch.arange(mask.shape[1])).clamp(max=hidden.shape[1] - 1)
        return pool_tokens(hidden.gather(1, span[..., None].expand(-1, -1, hidden.shape[2])), mask, view.pooling)


def _describe(literal: Sequence[int], ids: Tensor, ending: int = 0, offset: int = 0) -> Tensor:
    """Return ids, mask, ending and offset (4, n, length) of a literal, for texts (n, length of texts)."""
    constants = torch.tensor([literal, *([value] * len(literal) for value in (1, ending, offset))], dtype=torch.long)
    return constants[:, None].expand(-1, ids.shape[0], -1)


def pack(tensors: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Move what a mask (n, length) marks to the left in tensors of its shape, in its order."""
    place = torch.arange(mask.shape[1], device=mask.device)
    order = torch.argsort(place + (1 - mask) * mask.shape[1], dim=1)  # keys differ, so that any sort is stable
    return [tensor.gather(1, order) for tensor in tensors]
