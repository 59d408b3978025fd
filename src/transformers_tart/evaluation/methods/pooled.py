"""A backbone with a classification head that can be trained: mean of the last hidden states, and a linear layer."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import accepts, text_encoder, without_cache
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.inputs.tokenization import collate


Rows = Sequence[dict[str, list[int]]]

DROPOUT = 0.1
TINY = 1e-12  # of a spread of examples that are all alike


class PooledEncoder(nn.Module):
    r"""
    From token ids to the mean of the last hidden states over the tokens of each text.

    Args:
        backbone (`PreTrainedModel`):
            Any text model without a head.
        accelerator (`Accelerator`):
            Decides the precision of the backbone's forward pass.
        pad_token_id (`int`, *optional*):
            Of the tokenizer.
        batch_size (`int`, *optional*):
            Most texts of a forward pass.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        accelerator: Accelerator,
        pad_token_id: int | None = None,
        batch_size: int | None = None,
    ):
        super().__init__()
        self.backbone = text_encoder(backbone)
        self.accelerator, self.pad_token_id, self.batch_size = accelerator, pad_token_id, batch_size

    def forward(self, rows: Rows) -> Tensor:
        """Features (n, hidden) float32 of rows of token ids."""
        batch = move(collate(rows, self.pad_token_id), self.backbone.device)
        if not accepts(self.backbone, "token_type_ids"):
            batch.pop("token_type_ids", None)
        with self.accelerator.autocast():
            output = self.backbone(**batch, **without_cache(self.backbone), return_dict=True)
        hidden, mask = output.last_hidden_state.float(), batch["attention_mask"][..., None]
        # rows of the padding may hold anything, NaN included
        return hidden.masked_fill(mask == 0, 0.0).sum(1) / mask.sum(1)

    def parts(self, rows: Rows, chosen: Sequence[int]) -> list[list[int]]:
        """Chosen rows, cut by length into parts that a forward pass has room for."""
        batcher = Batcher.on(self.backbone.device, self.batch_size)
        lengths = [len(rows[i]["input_ids"]) for i in chosen]
        return [[chosen[i] for i in part] for part, _ in batcher.run(lengths, torch.tensor)]

    @torch.no_grad()
    def embed(self, rows: Rows) -> Tensor:
        """Features (n, hidden) float32 of any number of rows, without gradients."""
        batcher = Batcher.on(self.backbone.device, self.batch_size)
        lengths = [len(row["input_ids"]) for row in rows]
        return run_batches(batcher, lengths, lambda chosen: self([rows[i] for i in chosen]))


class Head(nn.Module):
    """A linear layer after dropout, on features centered and scaled as those of the examples were at first.

    It begins with zeros, so that the first predictions are even; the scale makes one learning rate fit all backbones.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, num_classes: int):
        super().__init__()
        mean = features.mean(0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", (features - mean).square().mean().sqrt().clamp_min(TINY))
        self.dropout, self.linear = nn.Dropout(DROPOUT), nn.Linear(features.shape[1], num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, hidden) -> logits (n, classes)."""
        return self.linear(self.dropout((features - self.mean) / self.scale))


__all__ = ["Head", "PooledEncoder", "Rows"]
