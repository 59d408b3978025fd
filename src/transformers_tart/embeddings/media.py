"""The embedder of a composed model for images, audio and other media, by the processor of the backbone.

No family of models is named here: maps of features and padding are recognized in inputs and outputs, and a trial
decides whether inputs of different lengths may be padded to one length.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.profiler import record_function

from transformers_tart.backbones.forward import are_close, input_device, layers_of, run_backbone, run_views
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.energy import energies_of
from transformers_tart.embeddings.pooling import (
    FrameMask,
    count_outputs,
    frame_mask_of,
    has_padding,
    infer_frame_mask,
    pool_map,
    pool_quarters,
    stack_layers,
)
from transformers_tart.embeddings.text import Embedder, Unreadable
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.kv_cache import accepts


Row = dict[str, Tensor]

MASK = "attention_mask"
TRIAL = 16000  # samples of the noise that shows whether padding changes an embedding


@dataclass(frozen=True)
class MediaEmbedder(Embedder):
    """Embedder of images, audio and other inputs that a processor reads one by one; see [`Embedder`]."""

    batches_per_window = 2
    examples_per_window = 64

    def __post_init__(self) -> None:
        if self.options.max_length is not None:
            raise ValueError(
                f"max_length is {self.options.max_length}, which is for texts; cut {self.modality} inputs before."
            )

    @property
    def main_input(self) -> str:
        """The name of the backbone's main input."""
        return self.backbone.main_input_name

    @record_function("tart/image processor")
    def read(self, processor: Any, items: Sequence[tuple[str, Any]], options: object = None) -> list[Any]:
        """Return rows for [`embed_rows`], or [`Unreadable`], from the places and values of inputs."""

        def read(given: tuple[str, Any]) -> Any:
            try:
                return self.row(processor, given[1], given[0])
            except (ValueError, TypeError, OSError) as err:
                return Unreadable(err)

        if len(items) == 1:
            return [read(items[0])]
        with ThreadPoolExecutor(min(len(items), os.cpu_count() or 1)) as pool:
            return list(pool.map(read, items))

    def row(self, processor: Any, item: object, where: str) -> Row:
        """Return the features of one input, without a batch axis; errors begin with its place."""
        if self.modality.read is None:
            raise ValueError(f"Inputs of the modality {self.modality} are not read one by one.")
        features = self.modality.read(processor, item, where)
        length = features[self.main_input].shape[-1]
        outputs = count_outputs(self.backbone, length)
        if outputs is not None and outputs < 1:
            raise ValueError(
                f"{where} has the length {length}, which is too short for {type(self.backbone).__name__}; leave it "
                "out or give a longer one."
            )
        return {name: tensor[0] for name, tensor in features.items()}

    def collate(self, processor: Any, rows: Sequence[Row]) -> Row:
        """Return a batch of rows."""
        return collate(rows)

    def _example_rows(self, processor: Any, inputs: Sequence[Any], start: int) -> list[Row]:
        place = f"The {self.modality} of example"
        return [self.row(processor, item, f"{place} {i}") for i, item in enumerate(inputs, start)]

    def _embed_alone(
        self, rows: Sequence[Row], views: Sequence[View], pad_token_id: int | None, batcher: Batcher
    ) -> Tensor:
        device = input_device(self.backbone)
        return run_batches(
            batcher,
            [self.modality.cost(row[self.main_input].numel()) for row in rows],
            lambda chosen: self.pool_batch(move(collate([rows[i] for i in chosen]), device), views),
            split=lambda members: self._split(rows, members),
            cache=self.cache,
            keys=[] if self.cache is None else [self.cache.key_of_tensors(row, views) for row in rows],
        )

    @record_function("tart/pooling")
    def pool_batch(self, batch: Row, views: Sequence[View]) -> Tensor:
        """Embed a batch before the normalization."""
        dtype, mask = self.backbone.dtype, batch.get(MASK)
        needs_energy = any(view.pooling == "energy" for view in views)
        energies = energies_of(self.backbone, batch[self.main_input], mask) if needs_energy else None
        given = {name: x for name, x in batch.items() if name == self.main_input or accepts(self.backbone, name)}
        given = {name: x.to(dtype) if x.is_floating_point() else x for name, x in given.items()}
        # some backbones were not trained with a mask where nothing is padding
        is_whole = mask is not None and bool(mask.all())
        if is_whole:
            given.pop(MASK, None)
        states, frame_mask = self._run(given, views, mask, self.modality.is_padded and not is_whole)
        size = getattr(self.backbone.config, "hidden_size", None)

        def pool(hidden: Tensor, view: View) -> tuple[Tensor, ...]:
            if view.pooling == "grid":
                return pool_quarters(hidden, given[self.main_input], size)
            return (pool_map(hidden, view.pooling, frame_mask, size, energies),)

        return stack_layers(
            [
                part
                for view, layers in zip(views, states, strict=True)
                for hidden in layers
                for part in pool(hidden, view)
            ]
        )

    def _run(
        self, given: Row, views: Sequence[View], mask: Tensor | None, may_be_padded: bool
    ) -> tuple[list[tuple[Tensor, ...]], FrameMask | None]:
        """Run a forward pass; return hidden states for each view and the mask of outputs that are not padding."""
        inputs = given[self.main_input]
        if not may_be_padded or mask is not None or not has_padding(inputs):
            frame_mask = frame_mask_of(self.backbone, mask, inputs) if may_be_padded and mask is not None else None
            return run_views(self.backbone, views, **given), frame_mask
        output = run_backbone(self.backbone, True, **given)
        frame_mask = infer_frame_mask(self.traits, inputs, output.hidden_states[0])
        return [layers_of(output, view) for view in views], frame_mask

    def _split(self, rows: Sequence[Row], members: list[int]) -> list[list[int]]:
        """Split members into groups that may share a batch: by shape, unless padding changes nothing."""
        by_shape: dict[tuple, list[int]] = {}
        for i in members:
            by_shape.setdefault(tuple((name, tuple(rows[i][name].shape)) for name in sorted(rows[i])), []).append(i)
        if len(by_shape) > 1 and all(rows[i][self.main_input].dim() == 1 for i in members) and self._may_pad():
            return [members]
        return list(by_shape.values())

    def _may_pad(self) -> bool:
        """Return whether noise beside longer noise, padded to its length, has the same embedding as alone."""
        if not accepts(self.backbone, MASK):
            return False
        if self.traits.is_padding_safe is None:
            noise = torch.randn(TRIAL, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
            long, short = (
                {self.main_input: x, MASK: torch.ones(len(x), dtype=torch.long)} for x in (noise, noise[: TRIAL // 2])
            )
            device = input_device(self.backbone)
            alone, beside = (
                self.pool_batch(move(collate(rows), device), self.views)[:1] for rows in ([short], [short, long])
            )
            self.traits.is_padding_safe = are_close(beside, alone, self.backbone.dtype)
        return self.traits.is_padding_safe


def collate(rows: Sequence[Row]) -> Row:
    """Put rows into a batch, recordings of different lengths padded at their ends."""
    batch = {}
    for name in rows[0]:
        tensors = [row[name] for row in rows]
        same = len({tensor.shape for tensor in tensors}) == 1
        batch[name] = torch.stack(tensors) if same else pad_sequence(tensors, batch_first=True)
    return batch
