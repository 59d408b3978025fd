"""`stream`: each text alone (arXiv 2306.07536, section 4.1)."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.backbones.forward import input_device, resolve_max_length, switch_length
from transformers_tart.checks.arguments import as_flag
from transformers_tart.configuration_tart import EmbeddingOptions
from transformers_tart.embeddings.arguments import check_models, check_options, check_texts
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.cache import EmbeddingCache
from transformers_tart.embeddings.pooling import normalized, pool_rows
from transformers_tart.inputs.examples import Text
from transformers_tart.inputs.tokenization import check_vocabulary, collate, known_token, tokenize


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
        progress_bar (`bool`, *optional*, defaults to `False`):
            Whether to show progress on stderr.
        cache ([`EmbeddingCache`], *optional*):
            Cache in which embeddings are looked up and stored.
        accelerator (`Accelerator`, *optional*):
            Shares the texts among its processes, each with its own backbone; every process gets all embeddings.

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`, in the order of the texts.
    """
    check_models(backbone, tokenizer, cache)
    options = check_options(pooling=pooling, layers=layers, normalize=normalize, max_length=max_length)
    progress_bar, texts = as_flag(progress_bar, "progress_bar"), check_texts(texts, "texts")
    rows = tokenize(tokenizer, texts, resolve_max_length(backbone, tokenizer, options.max_length))
    batcher, rank, world_size = Batcher.on(input_device(backbone), batch_size), 0, 1
    if accelerator is not None:
        rank, world_size = accelerator.process_index, accelerator.num_processes
    mine = rows[rank::world_size] or rows[:1]  # a process without a text of its own embeds one for the shape
    with tqdm(total=len(mine), desc="embedding", unit="text", disable=not progress_bar or rank > 0) as bar:
        found = encode_rows(backbone, mine, tokenizer.pad_token_id, options, batcher, cache, bar)
    if accelerator is not None and world_size > 1:
        found = _gather(found, len(rows), accelerator)
    return normalized(found, options.normalize)


def _gather(found: Tensor, count: int, accelerator: Accelerator) -> Tensor:
    """Return all rows, of which process p has found every p-th."""
    longest = -(-count // accelerator.num_processes)
    padded = torch.cat([found, found[:1].expand(longest - len(found), -1, -1)])
    together = accelerator.gather(padded).unflatten(0, (accelerator.num_processes, longest))
    return together.transpose(0, 1).flatten(0, 1)[:count]


def encode_rows(
    backbone: PreTrainedModel,
    rows: Sequence[dict[str, list[int]]],
    pad_token_id: int | None,
    options: EmbeddingOptions,
    batcher: Batcher,
    cache: EmbeddingCache | None = None,
    progress: tqdm | None = None,
) -> Tensor:
    """Embed rows of token ids, each alone: (n, layers, hidden), before any normalization."""
    check_vocabulary(backbone, (row["input_ids"] for row in rows))
    device, pad_token_id = input_device(backbone), known_token(backbone, pad_token_id)

    def work(chosen: list[int]) -> Tensor:
        batch = move(collate([rows[i] for i in chosen], pad_token_id), device)
        return pool_rows(backbone, batch, pooling=options.pooling, layers=options.layers)

    keys = [] if cache is None else [cache.key(*row.values()) for row in rows]
    lengths, limit = [len(row["input_ids"]) for row in rows], switch_length(backbone)
    alone = [] if limit is None else [length > limit for length in lengths]
    return run_batches(batcher, lengths, work, alone=alone, cache=cache, keys=keys, progress=progress)


__all__ = ["encode_rows", "encode_texts"]
