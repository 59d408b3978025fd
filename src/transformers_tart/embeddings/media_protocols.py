"""A support set and queries of images or audio to embeddings: what tests and researchers call."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers import PreTrainedModel

from transformers_tart.backbones.forward import input_device
from transformers_tart.backbones.towers import find_tower, modalities_of
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.embeddings.reference import SEED
from transformers_tart.embeddings.reference_media import published_projection
from transformers_tart.inputs import read_audio, read_image
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.modality import IMAGE, Modality
from transformers_tart.projection import LayerScaling


def embed_media(
    backbone: PreTrainedModel,
    processor: Any,
    support: Sequence[Any],
    support_labels: Sequence[int],
    queries: Sequence[Any],
    *,
    pooling: str = "mean",
    layers: int | str = -1,
    batch_size: int | None = None,
    seed: int = SEED,
    reference: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Embed a support set and queries, each input alone.

    Args:
        backbone (`PreTrainedModel`):
            A model that reads images or audio.
        processor (`BaseImageProcessor` or `SequenceFeatureExtractor`):
            The backbone's.
        support (`list`), support_labels (`list[int]`), queries (`list`):
            k labeled images or recordings and n to be classified, as [`read_image`] and [`read_audio`] take them.
        pooling (`str`, *optional*, defaults to `"mean"`), layers (`int` or `str`, *optional*, defaults to -1):
            As in [`TartBaseConfig`]; `"all"` puts the layers side by side, each centered and scaled by the support
            set.
        batch_size (`int`, *optional*):
            Most inputs of a forward pass.
        seed (`int`, *optional*, defaults to 42):
            Of the order of the support set, for `reference=True`.
        reference (`bool`, *optional*, defaults to `False`):
            Whether to follow the published code (HazyResearch/TART, `embed_utils.py`): images resized to a square,
            gray and without the processor's normalization, the mean of all last hidden states, padding of audio
            included, the support set shuffled, then the projection to 8 components, twice side by side.

    Returns:
        `tuple[torch.FloatTensor, torch.FloatTensor, torch.LongTensor]`: support (k, dim), query (n, dim) and labels
        (k,) in the order of the support rows; dim is 16 for `reference=True`.

    Raises:
        ValueError: When the backbone reads neither images nor audio, or an input cannot be read.
    """
    reads = modalities_of(backbone)
    config_class: Any = next((each for each in TartBaseConfig.__subclasses__() if each.modality in reads), None)
    if config_class is None:
        raise ValueError(f"{type(backbone).__name__} reads neither images nor audio; use embed for texts.")
    tower = find_tower(backbone, config_class.modality)[1]
    labels = list(support_labels)
    if reference:
        order = list(range(len(support)))
        random.Random(seed).shuffle(order)
        known, asked = (
            torch.stack([_published(tower, processor, config_class.modality, item) for item in items])
            for items in ([support[i] for i in order], queries)
        )
        return *published_projection(known, asked), torch.tensor([labels[i] for i in order])
    embedder = MediaEmbedder(tower, config_class(pooling=pooling, layers=layers))
    known, asked = (
        embedder.embed_examples(Examples(list(items), [], ()), processor, batch_size=batch_size).embeddings
        for items in (support, queries)
    )
    if layers != "all":
        return known[:, 0], asked[:, 0], torch.tensor(labels)
    scaling = LayerScaling.fit(known)
    return scaling.transform(known), scaling.transform(asked), torch.tensor(labels)


@torch.no_grad()
def _published(tower: PreTrainedModel, processor: Any, modality: Modality, item: object) -> Tensor:
    """The mean (hidden,) of the last hidden states of one input, on the CPU."""
    if modality is IMAGE:
        size = tower.config.image_size
        square = read_image(item, "An image").resize((size, size), Resampling.BILINEAR)
        gray = torch.from_numpy(np.array(square.convert("L"))).float() / 255
        inputs = gray.expand(3, -1, -1)
    else:
        rate = processor.sampling_rate
        samples = read_audio(item, "A recording", rate)
        inputs = processor(samples, sampling_rate=rate, return_tensors="pt")[tower.main_input_name][0]
    batch = {tower.main_input_name: inputs[None].to(input_device(tower), tower.dtype)}
    return tower(**batch).last_hidden_state[0].float().mean(0).cpu()


__all__ = ["embed_media"]
