"""A support set and queries to embeddings, by any protocol: functions for tests and researchers."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import input_device
from transformers_tart.backbones.towers import find_tower, modalities_of
from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.checks.arguments import as_flag, check_kind
from transformers_tart.checks.tensors import check_seed
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.arguments import (
    as_limit,
    check_class_numbers,
    check_models,
    check_names,
    check_options,
    check_texts,
)
from transformers_tart.embeddings.batching import Batcher
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.embeddings.prompts import choose_template
from transformers_tart.embeddings.reference import (
    MAX_CHARACTERS,
    SEED,
    PublishedProcedure,
    published_mean,
    published_projection,
)
from transformers_tart.embeddings.text import Embedder
from transformers_tart.inputs.examples import Examples
from transformers_tart.inputs.texts import Text
from transformers_tart.inputs.views import View
from transformers_tart.projection import LayerScaling


def encode_texts(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    pooling: str = "mean",
    layers: int | str = -1,
    normalize: bool = False,
    max_length: int | None = None,
    batch_size: int | None = None,
    progress_bar: bool = False,
    cache: EmbeddingCache | None = None,
    accelerator: Accelerator | None = None,
) -> Tensor:
    r"""
    Embed each text alone, in batches of similar length.

    Args:
        backbone (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The frozen model and its tokenizer.
        texts (`list`):
            n texts or (text, text_pair) tuples.
        pooling (`str`), layers (`int` or `str`):
            As in [`pooled_hidden_states`].
        normalize (`bool`, *optional*, defaults to `False`):
            Whether each embedding, of each layer, is divided by its Euclidean norm.
        max_length (`int`, *optional*):
            Longest text in tokens; the limit of the tokenizer and the backbone when not given.
        batch_size (`int`, *optional*):
            Most texts of a forward pass; as many as a budget of tokens allows when not given.
        progress_bar (`bool`, *optional*, defaults to `False`), cache ([`EmbeddingCache`], *optional*):
            Whether to show progress on stderr, and a cache in which embeddings are looked up and stored.
        accelerator (`Accelerator`, *optional*):
            Shares the texts among its processes, each with its own backbone; every process gets all embeddings.

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`, in the order of the texts.
    """
    check_models(backbone, tokenizer, cache)
    options = check_options(pooling=pooling, layers=layers, normalize=normalize, max_length=max_length)
    progress_bar, texts = as_flag(progress_bar, "progress_bar"), check_texts(texts, "texts")
    rank, size = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    mine = texts[rank::size] or texts[:1]  # a process without a text of its own embeds one for the shape
    embedder = Embedder(BackboneTraits(backbone), options, cache)
    show: dict[str, Any] = {"progress_bar": progress_bar and rank == 0}
    found = embedder.embed_examples(Examples(mine, [], ()), tokenizer, batch_size=batch_size, **show).embeddings
    if accelerator is None or size == 1:
        return found
    longest = -(-len(texts) // size)
    padded = torch.cat([found, found[:1].expand(longest - len(found), -1, -1)])
    return accelerator.gather(padded).unflatten(0, (size, longest)).transpose(0, 1).flatten(0, 1)[: len(texts)]


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
    seed: int = SEED,
    reference: bool = False,
    cache: EmbeddingCache | None = None,
    traits: BackboneTraits | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Embed a support set and queries.

    Args:
        backbone (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The frozen model and its tokenizer.
        support_texts (`list`), support_labels (`list[int]`), query_texts (`list`):
            k labeled texts, and n texts to be classified.
        protocol (`str`, *optional*, defaults to `"stream"`):
            `"stream"`: each text alone. `"vanilla"`: all examples in one prompt, which queries follow. `"loo"`: each
            example after all the others, as queries are. The last two need a causal language model.
        pooling (`str`), normalize (`bool`), batch_size (`int`), cache ([`EmbeddingCache`]), *optional*:
            As in [`encode_texts`].
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the hidden states, or `"all"`: each layer centered and scaled by the support set, side by side.
        template (`str`, *optional*):
            Template of an example in a prompt, with `{text}`, for pairs `{text_pair}`, and `{label}`. The paper's when
            not given: `"Sentence: {text}\nLabel: {label}\n"`.
        label_names (`list[str]`, *optional*):
            Names of the classes in a prompt; their numbers when not given.
        max_length (`int`, *optional*), max_characters (`int`, *optional*):
            Limits of each text, in tokens and in characters; that of the context when not given.
        seed (`int`, *optional*, defaults to 42):
            Seed of the order of a prompt.
        reference (`bool`, *optional*, defaults to `False`):
            Whether to repeat the published procedure to the letter: its label words, its order, 100 characters of a
            text where `max_characters` is not given, 2048 tokens of a prompt, and a forward pass a query.
        traits ([`BackboneTraits`], *optional*):
            The backbone with the results of earlier calls, which then try no strategy for prompts again.

    Returns:
        `tuple`: support embeddings (k, hidden), query embeddings (n, hidden) and labels (k,), in one order; float32
        and int64. Prompts have an order of their own, and where they are longer than the context, fewer examples.
        With `layers="all"` the width is that of all layers together.

    Raises:
        ValueError: On an unknown protocol, unequal lengths, a template that cannot be read, a prompt that does not
            fit, or a backbone that is no causal language model where one is needed.
    """
    options = check_options(protocol, template, pooling, normalize, layers, max_length)
    check_models(backbone, tokenizer, cache)
    check_kind("traits", traits, BackboneTraits, type(None))
    support_texts = check_texts(support_texts, "support_texts")
    support_labels = check_class_numbers(support_labels, "support_labels")
    query_texts = check_texts(query_texts, "query_texts")
    if len(support_texts) != len(support_labels):
        raise ValueError(
            f"There are {len(support_texts)} support_texts and {len(support_labels)} support_labels; give as many "
            "labels as texts."
        )
    max_characters, batch_size = as_limit(max_characters, "max_characters"), as_limit(batch_size, "batch_size")
    names, seed = check_names(label_names, support_labels), check_seed(seed)
    if as_flag(reference, "reference"):
        if options != check_options(options.protocol) or label_names:
            raise ValueError(
                "reference=True repeats the published procedure, which has no other pooling, normalize, layers, "
                "template, label names or max_length: leave them at their defaults."
            )
        published = PublishedProcedure(backbone, tokenizer, seed, max_characters or MAX_CHARACTERS)
        return published.embed(options.protocol, support_texts, support_labels, query_texts)
    support_texts, query_texts = ([_cut(t, max_characters) for t in texts] for texts in (support_texts, query_texts))
    if options.has_prompt:
        choose_template(options.template, [*support_texts, *query_texts])
    if traits is None:
        traits = BackboneTraits(backbone)
    elif traits.backbone is not backbone:
        raise ValueError("traits are those of another backbone; leave them out.")
    embedder = Embedder(traits, options, cache)
    examples = Examples(support_texts, support_labels, names)
    support, order, reading = embedder.embed_examples(examples, tokenizer, batch_size=batch_size, seed=seed)
    rows, batcher = embedder.tokenize(tokenizer, query_texts), Batcher.on(input_device(backbone), batch_size)
    query = embedder.embed_rows(rows, reading, pad_token_id=tokenizer.pad_token_id, batcher=batcher)
    return _side_by_side(support, query, [support_labels[i] for i in order])


def _cut(text: Text, max_characters: int | None) -> Text:
    return text[:max_characters] if isinstance(text, str) else (text[0][:max_characters], text[1][:max_characters])


def _side_by_side(support: Tensor, query: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings (k, dim) and (n, dim) of one layer, or of all, each scaled by the support set; and labels."""
    known = torch.tensor(labels, dtype=torch.int64, device=support.device)
    if support.shape[1] == 1:
        return support[:, 0], query[:, 0], known
    scaling = LayerScaling.fit(support)
    return scaling.transform(support), scaling.transform(query), known


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
    Embed a support set and queries of images or audio, each input alone.

    Args:
        backbone (`PreTrainedModel`), processor (`BaseImageProcessor` or `SequenceFeatureExtractor`):
            A model that reads images or audio, and its processor.
        support (`list`), support_labels (`list[int]`), queries (`list`):
            k labeled images or recordings and n to be classified, as [`read_image`] and [`read_audio`] take them.
        pooling (`str`, *optional*, defaults to `"mean"`), layers (`int` or `str`, *optional*, defaults to -1):
            As in [`TartMediaConfig`]; `"all"` puts the layers side by side, each centered and scaled by the support
            set.
        batch_size (`int`, *optional*), seed (`int`, *optional*, defaults to 42):
            Most inputs of a forward pass, and the seed of the order of the support set, for `reference=True`.
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
    known_classes = [each for each in TartBaseConfig.__subclasses__() if not each.modality.is_tokenized]
    config_class = next((each for each in known_classes if each.modality in modalities_of(backbone)), None)
    if config_class is None:
        raise ValueError(f"{type(backbone).__name__} reads neither images nor audio; use embed for texts.")
    modality = config_class.modality
    tower = find_tower(backbone, modality)[1]
    labels = list(support_labels)
    if reference:
        order = list(range(len(support)))
        random.Random(seed).shuffle(order)
        known, asked = (
            torch.stack([published_mean(tower, processor, modality, item) for item in items])
            for items in ([support[i] for i in order], queries)
        )
        return *published_projection(known, asked), torch.tensor([labels[i] for i in order])
    options = config_class(views=[View(pooling=pooling, layers=layers)]).embedding_options
    embedder = MediaEmbedder(BackboneTraits(tower), options, modality=modality)
    known, asked = (
        embedder.embed_examples(Examples(list(items), [], ()), processor, batch_size=batch_size).embeddings
        for items in (support, queries)
    )
    return _side_by_side(known, asked, labels)
