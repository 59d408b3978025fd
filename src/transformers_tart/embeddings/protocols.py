"""A support set and queries to embeddings, by any protocol: what tests and researchers call."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import input_device
from transformers_tart.backbones.towers import find_tower, modalities_of
from transformers_tart.checks.arguments import as_flag, shorten
from transformers_tart.checks.tensors import check_seed
from transformers_tart.configuration_media import TartAudioConfig, TartImageConfig
from transformers_tart.configuration_tart import IN_CONTEXT_PROTOCOLS, PROTOCOLS
from transformers_tart.embeddings.arguments import (
    as_limit,
    check_class_numbers,
    check_models,
    check_names,
    check_reading,
    check_texts,
)
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.in_context import read_support, write_prompt
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.embeddings.pooling import normalized
from transformers_tart.embeddings.reference import MAX_CHARACTERS, SEED, PublishedProcedure, published_projection
from transformers_tart.embeddings.shared_prefix import Reader
from transformers_tart.embeddings.stream import encode_texts
from transformers_tart.inputs import read_audio, read_image
from transformers_tart.inputs.examples import Examples, Text
from transformers_tart.inputs.template import parse_template
from transformers_tart.projection import LayerScaling


def embed(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[Text],
    support_labels: Sequence[int],
    query_texts: Sequence[Text],
    *,
    protocol: str = "stream",
    pooling: str = "mean",
    normalize: bool = False,
    layers: int | str = -1,
    template: str | None = None,
    label_names: Sequence[str] | None = None,
    max_length: int | None = None,
    max_characters: int | None = None,
    batch_size: int | None = None,
    seed: int = 42,
    reference: bool = False,
    cache: EmbeddingCache | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Embed a support set and queries, as tests and researchers need them.

    Args:
        backbone (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The frozen model and its tokenizer.
        support_texts (`list`), support_labels (`list[int]`):
            k labeled texts.
        query_texts (`list`):
            n texts.
        protocol (`str`, *optional*, defaults to `"stream"`):
            `"stream"`: each text alone. `"vanilla"`: all examples in one prompt, which queries follow. `"loo"`: each
            example after all the others, as queries are. The last two need a causal language model.
        pooling (`str`), normalize (`bool`):
            As in [`encode_texts`].
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the hidden states, or `"all"`: each layer centered and scaled by the support set, side by side.
        template (`str`, *optional*):
            Of an example in a prompt, with `{text}`, for pairs `{text_pair}`, and `{label}`. The paper's when not
            given: `"Sentence: {text}\nLabel: {label}\n"`.
        label_names (`list[str]`, *optional*):
            What a prompt calls the classes; their numbers when not given.
        max_length (`int`, *optional*), max_characters (`int`, *optional*):
            What is read of each text, in tokens and in characters; all that the context allows when not given.
        batch_size (`int`, *optional*):
            Most texts of a forward pass; as many as a budget of tokens allows when not given.
        seed (`int`, *optional*, defaults to 42):
            Seed of the order of a prompt.
        reference (`bool`, *optional*, defaults to `False`):
            Whether to repeat the published procedure to the letter: its label words, its order, 100 characters of a
            text where `max_characters` is not given, 2048 tokens of a prompt, and a forward pass a query.
        cache ([`EmbeddingCache`], *optional*):
            Where embeddings are looked up first, and kept.

    Returns:
        `tuple`: support embeddings (k, hidden), query embeddings (n, hidden) and labels (k,), in one order; float32
        and int64. Prompts have an order of their own, and where they are longer than the context, fewer examples.
        With `layers="all"` the width is that of all layers together.

    Raises:
        ValueError: On an unknown protocol, unequal lengths, a template that cannot be read, a prompt that does not
            fit, or a backbone that is no causal language model where one is needed.
    """
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise ValueError(f"protocol is {shorten(protocol)}; it must be one of {PROTOCOLS}.")
    check_models(backbone, tokenizer, cache)
    support_texts = check_texts(support_texts, "support_texts")
    support_labels = check_class_numbers(support_labels, "support_labels")
    query_texts = check_texts(query_texts, "query_texts")
    if len(support_texts) != len(support_labels):
        raise ValueError(
            f"There are {len(support_texts)} support_texts and {len(support_labels)} support_labels; give as many "
            "labels as texts."
        )
    layers, seed = check_reading(pooling, layers), check_seed(seed)
    normalize, reference = as_flag(normalize, "normalize"), as_flag(reference, "reference")
    max_length, max_characters = as_limit(max_length, "max_length"), as_limit(max_characters, "max_characters")
    batch_size, names = as_limit(batch_size, "batch_size"), check_names(label_names, support_labels)
    if template is not None:
        parse_template(template)
    if reference:
        options = [pooling != "mean", normalize, layers != -1, template, label_names, max_length is not None]
        if any(options):
            raise ValueError(
                "reference=True repeats the published procedure, which knows no other pooling, normalize, layers, "
                "template, label names or max_length: leave them at their defaults."
            )
        return _published(
            backbone, tokenizer, support_texts, support_labels, query_texts, protocol, seed, max_characters
        )
    if protocol in IN_CONTEXT_PROTOCOLS:
        limits = {"max_length": max_length, "max_characters": max_characters}
        written = write_prompt(
            backbone, tokenizer, support_texts, support_labels, names, template=template, seed=seed, **limits
        )
        reader = Reader(backbone, layers, pooling, cache)
        support, prefix = read_support(reader, written, protocol)
        parts = written.writer.parts(query_texts, max_characters=max_characters)
        query = reader.embed(prefix, [written.prompt.branch(p, max_length) for p in parts])
        support_labels = [support_labels[i] for i in written.order]
    else:
        encoding = {"pooling": pooling, "layers": layers, "max_length": max_length, "batch_size": batch_size}
        support, query = (
            encode_texts(backbone, tokenizer, [_cut(t, max_characters) for t in texts], cache=cache, **encoding)  # type: ignore[arg-type]
            for texts in (support_texts, query_texts)
        )
    labels = torch.tensor(support_labels, dtype=torch.int64, device=support.device)
    support, query = normalized(support, normalize), normalized(query, normalize)
    if layers != "all":
        return support.squeeze(1), query.squeeze(1), labels
    scaling = LayerScaling.fit(support)
    return scaling.transform(support), scaling.transform(query), labels


def _cut(text: Text, max_characters: int | None) -> Text:
    return text[:max_characters] if isinstance(text, str) else (text[0][:max_characters], text[1][:max_characters])


def _published(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    labels: Sequence[int],
    queries: Sequence[Text],
    protocol: str,
    seed: int,
    max_characters: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The published procedure, for what it can read."""
    if not all(isinstance(text, str) for text in (*texts, *queries)) or not set(labels) <= {0, 1}:
        raise ValueError("reference=True repeats the published procedure: single texts of the classes 0 and 1.")
    limit = MAX_CHARACTERS if max_characters is None else max_characters
    published = PublishedProcedure(backbone, tokenizer, seed, limit)
    support, query, order = published.embed(protocol, texts, labels, queries)  # type: ignore[arg-type]
    return support, query, torch.tensor(order)


CONFIGS: dict[str, Any] = {"image": TartImageConfig, "audio": TartAudioConfig}


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
            As in [`TartMediaConfig`]; `"all"` puts the layers side by side, each centered and scaled by the support
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
    modality = next((name for name in CONFIGS if name in modalities_of(backbone)), None)
    if modality is None:
        raise ValueError(f"{type(backbone).__name__} reads neither images nor audio; use embed for texts.")
    tower = find_tower(backbone, modality)[1]
    labels = list(support_labels)
    if reference:
        order = list(range(len(support)))
        random.Random(seed).shuffle(order)
        known, asked = (
            torch.stack([_published_media(tower, processor, modality, item) for item in items])
            for items in ([support[i] for i in order], queries)
        )
        return *published_projection(known, asked), torch.tensor([labels[i] for i in order])
    embedder = MediaEmbedder(tower, CONFIGS[modality](pooling=pooling, layers=layers))
    known, asked = (
        embedder.embed_examples(Examples(list(items), [], ()), processor, batch_size=batch_size).embeddings
        for items in (support, queries)
    )
    if layers != "all":
        return known[:, 0], asked[:, 0], torch.tensor(labels)
    scaling = LayerScaling.fit(known)
    return scaling.transform(known), scaling.transform(asked), torch.tensor(labels)


@torch.no_grad()
def _published_media(tower: PreTrainedModel, processor: Any, modality: str, item: object) -> Tensor:
    """The mean (hidden,) of the last hidden states of one input, on the CPU."""
    if modality == "image":
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


__all__ = ["embed", "embed_media"]
