"""Texts to padded batches of token ids, for any tokenizer."""

from collections.abc import Iterable, Sequence, Sized

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.examples import Text


logger = logging.get_logger(__name__)

# Tokenizers without a limit of their own carry a huge number instead.
NO_LIMIT = int(1e6)


def backbone_max_length(backbone: PreTrainedModel) -> int | None:
    """Longest input in tokens that the backbone takes, `None` without a limit."""
    limit = getattr(backbone.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    for module in backbone.modules():
        # A learned position table with a padding index counts positions from the one after it.
        if not isinstance(module, nn.Embedding) or module is backbone.get_input_embeddings():
            continue
        if module.num_embeddings == limit and module.padding_idx is not None:
            return limit - module.padding_idx - 1
    return limit


def resolve_max_length(
    backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None
) -> int | None:
    """The smallest of what the user, the tokenizer and the backbone allow; `None` without any limit."""
    own = tokenizer.model_max_length
    limits = [max_length, own if own and own < NO_LIMIT else None, backbone_max_length(backbone)]
    return min((limit for limit in limits if limit is not None), default=None)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_length: int | None
) -> list[dict[str, list[int]]]:
    """Token ids of each text or text pair, unpadded; truncated to `max_length`, which is said once.

    A text without any token, which happens to tokenizers that add none, becomes a single neutral token.
    """
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = [text[1] for text in texts if not isinstance(text, str)]
    if second and len(second) != len(first):
        pairs = [text for text in texts if not isinstance(text, str)]
        done = iter(tokenize(tokenizer, pairs, max_length))
        single = iter(tokenize(tokenizer, [text for text in texts if isinstance(text, str)], max_length))
        return [next(single) if isinstance(text, str) else next(done) for text in texts]
    encoded = tokenizer(
        first, second or None, truncation=False, padding=False, return_attention_mask=False, verbose=False
    )
    if say_what_is_cut(encoded["input_ids"], max_length):
        encoded = tokenizer(first, second or None, truncation=True, max_length=max_length, return_attention_mask=False)
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    rows = [{name: list(encoded[name][i]) for name in names} for i in range(len(texts))]
    return [
        row if row["input_ids"] else {name: [neutral_token(tokenizer) * (name == "input_ids")] for name in names}
        for row in rows
    ]


def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, list[int]]]:
    """Token ids of each text, or of each text and its pair one after the other, whole and without special tokens.

    `token_type_ids` of pairs are 0 for the first text and 1 for the second.
    """
    split = [(text,) if isinstance(text, str) else text for text in texts]
    flat = [part for parts in split for part in parts]
    ids = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"])
    rows = []
    for parts in split:
        encoded = [list(next(ids)) for _ in parts]
        row = {"input_ids": [token for part in encoded for token in part]}
        if len(parts) > 1:
            row["token_type_ids"] = [segment for segment, part in enumerate(encoded) for _ in part]
        rows.append(row)
    return rows


def say_what_is_cut(rows: Sequence[Sized], limit: int | None) -> bool:
    """Whether a row is longer than the limit, which is said once."""
    is_cut = limit is not None and any(len(row) > limit for row in rows)
    if is_cut:
        logger.warning_once(f"Some texts are longer than the {limit} tokens that are read; the rest is cut off.")
    return is_cut


def neutral_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a token that says nothing."""
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id)
    return next((token for token in candidates if token is not None), 0)


def check_vocabulary(backbone: PreTrainedModel, rows: Iterable[Sequence[int]]) -> None:
    """Raise a ValueError when token ids are beyond the vocabulary of a backbone: the tokenizer is another's."""
    largest = max((max(row, default=0) for row in rows), default=0)
    if known_token(backbone, largest) is None:
        raise ValueError(
            f"The tokenizer gives the token id {largest}, which the backbone does not know: it is damaged, or that of "
            "another model. Give the backbone's own: tokenizer=..."
        )


def known_token(backbone: PreTrainedModel, token: int | None) -> int | None:
    """Return a token id, `None` where the backbone has no embedding for it, as for a pad token that was added."""
    size = getattr(backbone.get_input_embeddings(), "num_embeddings", None)
    return None if token is None or (size is not None and token >= size) else token


def collate(rows: Sequence[dict[str, list[int]]], pad_token_id: int | None) -> dict[str, Tensor]:
    """Pad rows of token ids on the right to one length: tensors (n, length) int64, with the attention mask."""
    length = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.tensor(
            [row[name] + [(pad_token_id or 0) * (name == "input_ids")] * (length - len(row[name])) for row in rows]
        )
        for name in rows[0]
    }
    mask = [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in rows]
    return {**batch, "attention_mask": torch.tensor(mask)}


def pad_right(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of a batch to the right, so that positions count from the first token of each text.

    Args:
        batch (`dict[str, torch.Tensor]`):
            Tensors (n, length), `attention_mask` among them.
    """
    mask = batch["attention_mask"]
    if (mask[:, :-1] >= mask[:, 1:]).all():
        return batch
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in batch.items()}


def truncate(batch: dict[str, Tensor], *limits: int | None) -> dict[str, Tensor]:
    """Cut the ends of a right-padded batch at the smallest of the limits that are given, which is said once."""
    limit = min((limit for limit in limits if limit is not None), default=None)
    if not say_what_is_cut(list(batch["attention_mask"][:1]), limit):
        return batch
    return {name: tensor[:, :limit] for name, tensor in batch.items()}


__all__ = [
    "backbone_max_length",
    "check_vocabulary",
    "collate",
    "known_token",
    "neutral_token",
    "pad_right",
    "resolve_max_length",
    "say_what_is_cut",
    "tokenize",
    "tokenize_parts",
    "truncate",
]
