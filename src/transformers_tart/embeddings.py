"""Protocols: how texts become embeddings.

`stream` embeds each text alone (arXiv 2306.07536, section 4.1).
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.examples import Text
from transformers_tart.projection import LayerScaling
from transformers_tart.tokenization import length_sorted_batches, pad_right, resolve_max_length, tokenize


DEFAULT_BATCH_SIZE = 32


def text_encoder(backbone: PreTrainedModel) -> PreTrainedModel:
    """The part of a backbone that reads text: the encoder of an encoder-decoder, else all of it."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


def pooled_hidden_states(
    backbone: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    *,
    pooling: str = "mean",
    layers: int | str = -1,
) -> Tensor:
    r"""
    Embed a batch of tokenised texts.

    Args:
        backbone (`PreTrainedModel`):
            Any text model without a head.
        input_ids (`torch.LongTensor` of shape `(n, length)`):
            Token ids, padded on either side.
        attention_mask (`torch.LongTensor` of shape `(n, length)`, *optional*):
            1 for tokens, 0 for padding; all ones when not given.
        token_type_ids (`torch.LongTensor` of shape `(n, length)`, *optional*):
            Segments of text pairs, left out for backbones that take none.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` or `"last"`, over the tokens of each text.
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the hidden states, or `"all"`.

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`: float32, one layer for an index.
    """
    encoder = text_encoder(backbone)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if not mask.any(dim=1).all():
        raise ValueError("A row of the batch has no token: its attention mask is all zero.")
    batch = {"input_ids": input_ids, "attention_mask": mask}
    accepted = inspect.signature(encoder.forward).parameters
    if token_type_ids is not None and "token_type_ids" in accepted:
        batch["token_type_ids"] = token_type_ids
    batch = pad_right(batch)
    options = {"use_cache": False} if "use_cache" in accepted else {}
    with torch.no_grad():
        if layers == -1:
            hidden_states = (encoder(**batch, **options, return_dict=True).last_hidden_state,)
        else:
            hidden_states = encoder(**batch, **options, return_dict=True, output_hidden_states=True).hidden_states
            hidden_states = hidden_states if layers == "all" else (_layer(hidden_states, layers),)
        pooled = [_pool(hidden, batch["attention_mask"].to(hidden.device), pooling) for hidden in hidden_states]
    return torch.stack([p.to(pooled[-1].device) for p in pooled], dim=1)


def _layer(hidden_states: tuple[Tensor, ...], index: int | str) -> Tensor:
    count = len(hidden_states)
    if not isinstance(index, int) or not -count <= index < count:
        raise ValueError(f'layers is {index!r}; the backbone has hidden states 0 to {count - 1}, or "all".')
    return hidden_states[index]


def _pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, length, hidden) -> (n, hidden) float32, over the tokens of a right-padded mask."""
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1].float()
    if pooling == "mean":
        weights = mask / mask.sum(1, keepdim=True)
        # rows of the padding may hold anything, NaN included
        return torch.einsum("nl,nlh->nh", weights.float(), hidden.float().masked_fill(mask[..., None] == 0, 0.0))
    raise ValueError(f'pooling is "{pooling}"; it must be "mean" or "last".')


def encode_texts(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    pooling: str = "mean",
    layers: int | str = -1,
    max_length: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress_bar: bool = False,
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
        max_length (`int`, *optional*):
            Longest text in tokens; what the tokenizer and the backbone allow when not given.
        batch_size (`int`, *optional*, defaults to 32):
            Texts of a forward pass.
        progress_bar (`bool`, *optional*, defaults to `False`):
            Whether to show progress on stderr.

    Returns:
        `torch.FloatTensor` of shape `(n, layers, hidden)`, in the order of the texts.
    """
    if not texts:
        raise ValueError("There are no texts to embed.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    rows = tokenize(tokenizer, texts, resolve_max_length(backbone, tokenizer, max_length))
    batches = length_sorted_batches(rows, batch_size, tokenizer.pad_token_id)
    total = -(-len(rows) // batch_size)
    order: list[int] = []
    embedded: list[Tensor] = []
    for chosen, batch in tqdm(batches, desc="embedding", unit="batch", total=total, disable=not progress_bar):
        order += chosen
        batch = {name: tensor.to(input_device(backbone)) for name, tensor in batch.items()}
        embedded.append(pooled_hidden_states(backbone, **batch, pooling=pooling, layers=layers))
    result = torch.cat(embedded)
    return torch.empty_like(result).index_copy_(0, torch.tensor(order, device=result.device), result)


def input_device(backbone: PreTrainedModel) -> torch.device:
    """Where the token ids of a backbone belong; hooks of a device map move them on."""
    device = backbone.device
    return torch.device("cpu") if device.type == "meta" else device


def embed(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[Text],
    support_labels: Sequence[int],
    query_texts: Sequence[Text],
    *,
    protocol: str = "stream",
    pooling: str = "mean",
    layers: int | str = -1,
    max_length: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Embed a support set and queries, as tests and researchers need them.

    Args:
        backbone (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            The frozen model and its tokenizer.
        support_texts (`list`), support_labels (`list[int]`):
            k labelled texts.
        query_texts (`list`):
            n texts.
        protocol (`str`, *optional*, defaults to `"stream"`):
            `"stream"`: each text alone.
        pooling (`str`), max_length (`int`), batch_size (`int`):
            As in [`encode_texts`].
        layers (`int` or `str`, *optional*, defaults to -1):
            Index into the hidden states, or `"all"`: each layer centred and scaled by the support set, side by side.

    Returns:
        `tuple`: support embeddings (k, hidden), query embeddings (n, hidden) and labels (k,), in one order; float32
        and int64. With `layers="all"` the width is that of all layers together.
    """
    if protocol != "stream":
        raise ValueError(f'protocol is "{protocol}"; it must be "stream".')
    if len(support_texts) != len(support_labels):
        raise ValueError(f"There are {len(support_texts)} support texts and {len(support_labels)} labels.")
    options = {"pooling": pooling, "layers": layers, "max_length": max_length, "batch_size": batch_size}
    support = encode_texts(backbone, tokenizer, support_texts, **options)  # type: ignore[arg-type]
    query = encode_texts(backbone, tokenizer, query_texts, **options)  # type: ignore[arg-type]
    labels = torch.tensor(support_labels, dtype=torch.int64, device=support.device)
    if layers != "all":
        return support.squeeze(1), query.squeeze(1), labels
    scaling = LayerScaling.fit(support)
    return scaling.transform(support), scaling.transform(query), labels


__all__ = ["embed", "encode_texts", "input_device", "pooled_hidden_states", "text_encoder"]
