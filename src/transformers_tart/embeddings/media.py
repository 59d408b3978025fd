"""How a composed model reads images and audio: each alone, by the processor of its backbone.

Nothing is known of families of models. How many values stand for a token, which outputs are maps of features, and
which of them are padding is read from inputs and outputs; whether inputs of different lengths may be padded to one
length is found by trying.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torch.profiler import record_function
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import accepts, are_close, choose_layer, input_device, run_backbone
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.media_pooling import (
    FrameMask,
    count_outputs,
    has_padding,
    infer_frame_mask,
    mask_of_outputs,
    pool_map,
)
from transformers_tart.embeddings.pooling import normalized
from transformers_tart.embeddings.text import EmbeddedExamples
from transformers_tart.inputs.examples import Examples


Row = dict[str, Tensor]

MASK = "attention_mask"
TRIAL = 16000  # samples of the noise by which it is found out whether padding changes anything
WINDOW = 64  # examples that are in memory at a time

_MAY_PAD: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class MediaEmbedder:
    r"""
    Embeds images or audio for a composed model.

    Args:
        backbone (`PreTrainedModel`):
            The frozen model.
        config ([`TartBaseConfig`]):
            Says pooling, normalization and layers.
        cache ([`EmbeddingCache`], *optional*):
            Where embeddings are looked up first, and kept.
    """

    backbone: PreTrainedModel
    config: TartBaseConfig
    cache: EmbeddingCache | None = None

    def row(self, processor: Any, item: object, where: str) -> Row:
        r"""
        What the backbone takes of one image or one piece of audio.

        Args:
            processor (`BaseImageProcessor` or `SequenceFeatureExtractor`):
                The backbone's.
            item (`object`):
                As [`read_image`] and [`read_audio`] take it.
            where (`str`):
                Its place, for messages.

        Raises:
            ValueError, TypeError, OSError: When it cannot be read.
        """
        read = self.config.modality.read
        if read is None:
            raise ValueError(f"Inputs of the modality {self.config.modality} are not read one by one.")
        features = read(processor, item, where)
        self._check_length(features, where)
        return {name: tensor[0] for name, tensor in features.items()}

    def embed_examples(
        self,
        examples: Examples,
        tokenizer: Any,
        *,
        batch_size: int | None = None,
        progress_bar: bool = False,
        seed: int = 0,
    ) -> EmbeddedExamples:
        """Embed a support set, in the order of the examples; `tokenizer` is the processor."""
        batcher = Batcher.on(input_device(self.backbone), batch_size)
        found, name = [], self.config.modality
        with tqdm(total=len(examples.inputs), desc="embedding", unit=name, disable=not progress_bar) as bar:
            for start in range(0, len(examples.inputs), WINDOW):
                window = examples.inputs[start : start + WINDOW]
                rows = [
                    self.row(tokenizer, item, f"The {name} of example {i}") for i, item in enumerate(window, start)
                ]
                found.append(self.embed_rows(rows, batcher=batcher, progress=bar))
        return EmbeddedExamples(torch.cat(found), list(range(len(examples.inputs))))

    def read_prompt(self, prompt: object) -> None:
        """Nothing: images and audio are read alone.

        Raises:
            ValueError: When the support set was made by a protocol with a prompt.
        """
        if prompt is not None:
            raise ValueError("The support set holds a prompt of texts; encode the examples again with this model.")

    def embed_rows(
        self,
        rows: Sequence[Row],
        prompt: object = None,
        prefix: object = None,
        *,
        pad_token_id: int | None = None,
        batcher: Batcher | None = None,
        progress: tqdm | None = None,
    ) -> Tensor:
        """Embeddings (n, layers, hidden) float32 of what [`row`] gives."""
        batcher = Batcher.on(input_device(self.backbone)) if batcher is None else batcher
        keys = [] if self.cache is None else [self.cache.key_of_tensors(row) for row in rows]
        cached = [] if self.cache is None else [e is not None for e in self.cache.get(keys)]
        known = [i for i, is_known in enumerate(cached) if is_known]
        groups = [known] if known else []
        groups += self._groups(rows, [i for i in range(len(rows)) if not (cached and cached[i])])
        found = []
        for members in groups:
            work = _on(self, [rows[i] for i in members])
            lengths = [self.config.modality.cost(self._values(rows[i])) for i in members]
            own = [keys[i] for i in members] if keys else []
            found.append(run_batches(batcher, lengths, work, cache=self.cache, keys=own, progress=progress))
        together = torch.cat([embeddings.to(found[-1].device) for embeddings in found])
        order = torch.tensor([i for members in groups for i in members], device=together.device)
        # after the cache, whose embeddings serve both ways
        return normalized(torch.empty_like(together).index_copy_(0, order, together), self.config.normalize)

    def embed_batch(self, batch: Row, prompt: object = None, prefix: object = None) -> Tensor:
        """Embeddings (n, layers, hidden) float32 of a batch of inputs, which never see each other."""
        return normalized(self.pool_batch(batch), self.config.normalize)

    @record_function("tart/pooling")
    def pool_batch(self, batch: Row) -> Tensor:
        """[`embed_batch`] without the normalization."""
        dtype = self.backbone.dtype
        main = self.backbone.main_input_name
        given = {name: tensor for name, tensor in batch.items() if name == main or accepts(self.backbone, name)}
        given = {name: x.to(dtype) if x.is_floating_point() else x for name, x in given.items()}
        mask = batch.get(MASK)
        # a mask that leaves nothing out says nothing, and is not what some backbones were trained with
        is_whole = mask is not None and bool(mask.all())
        if is_whole:
            given.pop(MASK, None)
        if is_whole or not self.config.modality.is_padded:
            hidden_states, heard = run_backbone(self.backbone, self.config.layers, **given)[1], None
        else:
            hidden_states, heard = self._read(given, mask)
        size = getattr(self.backbone.config, "hidden_size", None)
        pooled = [pool_map(hidden, self.config.pooling, heard, size) for hidden in hidden_states]
        width = max(layer.shape[-1] for layer in pooled)  # layers of a pyramid have several
        return torch.stack([pad(layer.to(pooled[-1].device), (0, width - layer.shape[-1])) for layer in pooled], dim=1)

    def _read(self, given: Row, mask: Tensor | None) -> tuple[tuple[Tensor, ...], FrameMask | None]:
        """A forward pass: the hidden states that the config asks for, and which outputs are of sound."""
        inputs, layers = given[self.backbone.main_input_name], self.config.layers
        if mask is not None:
            return run_backbone(self.backbone, layers, **given)[1], mask_of_outputs(self.backbone, mask, inputs)
        if not has_padding(inputs):
            return run_backbone(self.backbone, layers, **given)[1], None
        output, everything = run_backbone(self.backbone, "all", **given)
        heard = infer_frame_mask(self.backbone, self.backbone.main_input_name, inputs, everything[0])
        if layers == "all":
            return everything, heard
        return (output.last_hidden_state if layers == -1 else choose_layer(everything, layers),), heard

    def _check_length(self, features: Mapping[str, Tensor], where: str) -> None:
        """Raise a ValueError on an input that is too short for one output of the backbone."""
        to_outputs: Callable | None = getattr(self.backbone, "_get_feat_extract_output_lengths", None)
        length = features[self.backbone.main_input_name].shape[-1]
        outputs = None if to_outputs is None else count_outputs(to_outputs, length)
        if outputs is not None and outputs < 1:
            raise ValueError(
                f"{where} has the length {length}, which is too short for {type(self.backbone).__name__}; "
                "leave it out or give a longer one."
            )

    def _values(self, row: Row) -> int:
        return row[self.backbone.main_input_name].numel()

    def _groups(self, rows: Sequence[Row], members: list[int]) -> list[list[int]]:
        """Members that may share a batch: of one shape, or, where padding changes nothing, of any length."""
        by_shape: dict[tuple, list[int]] = {}
        for i in members:
            by_shape.setdefault(tuple((name, tuple(rows[i][name].shape)) for name in sorted(rows[i])), []).append(i)
        name = self.backbone.main_input_name
        if len(by_shape) > 1 and all(rows[i][name].dim() == 1 for i in members) and self._may_pad(name):
            return [members]
        return list(by_shape.values())

    def _may_pad(self, name: str) -> bool:
        """Whether a sound gives the same beside a longer one, padded to its length, as alone: tried on noise."""
        if not accepts(self.backbone, MASK):
            return False
        if self.backbone not in _MAY_PAD:
            noise = torch.randn(TRIAL, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
            long, short = ({name: x, MASK: torch.ones(len(x), dtype=torch.long)} for x in (noise, noise[: TRIAL // 2]))
            device = input_device(self.backbone)
            alone, beside = (self.pool_batch(move(collate(rows), device))[:1] for rows in ([short], [short, long]))
            _MAY_PAD[self.backbone] = are_close(beside, alone, self.backbone.dtype)
        return _MAY_PAD[self.backbone]


def collate(rows: Sequence[Row]) -> Row:
    """Put rows into a batch, sounds of different lengths padded at their ends."""
    batch = {}
    for name in rows[0]:
        tensors = [row[name] for row in rows]
        same = len({tensor.shape for tensor in tensors}) == 1
        batch[name] = torch.stack(tensors) if same else pad_sequence(tensors, batch_first=True)
    return batch


def _on(embedder: MediaEmbedder, rows: Sequence[Row]) -> Callable[[list[int]], Tensor]:
    """What embeds chosen rows."""
    device = input_device(embedder.backbone)
    return lambda chosen: embedder.pool_batch(move(collate([rows[i] for i in chosen]), device))


__all__ = ["MediaEmbedder", "collate"]
