"""Tokenization of texts to padded batches, for any tokenizer."""

import copy
from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeVar

import torch
from tokenizers import Encoding
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.profiler import record_function
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.tracing import is_traced
from transformers_tart.inputs.texts import Text


logger = logging.get_logger(__name__)

TRUNCATION_SIDES = ("right", "left")
MOST_SPECIAL = 2**10

T = TypeVar("T")


def check_tokenizer(tokenizer: Any) -> None:
    """Raise a TypeError for something else than a tokenizer."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            f"tokenizer is {shorten(tokenizer)} of type {type(tokenizer).__name__}; give that of the backbone, from "
            "AutoTokenizer.from_pretrained."
        )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    first: Sequence[str],
    second: Sequence[str] | None = None,
    *,
    add_special_tokens: bool = True,
) -> BatchEncoding:
    """Encode texts or text pairs without truncation and padding.

    Both are state of the backend that threads share, so they are never set here. Where another thread has set them, a
    copy of the tokenizer encodes the texts again.

    Raises:
        ValueError: When the tokenizer has special tokens only.
    """
    _check_has_words(tokenizer)

    def run(chosen: PreTrainedTokenizerBase) -> BatchEncoding:
        return chosen(
            list(first),
            None if second is None else list(second),
            add_special_tokens=add_special_tokens,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )

    encoded = run(tokenizer)
    is_whole = not any(row.overflowing or 0 in row.attention_mask for row in encoded.encodings or ())
    return encoded if is_whole else run(copy.deepcopy(tokenizer))


def _check_has_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a ValueError on special tokens alone, as transformers makes a tokenizer of a folder without one."""
    if tokenizer.vocab_size > MOST_SPECIAL:  # listing the special tokens of large vocabularies takes long
        return
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if len(tokenizer) <= len(added) and all(token.special for token in added.values()):
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} special tokens and no other, so all texts are alike: "
            f"{tokenizer.name_or_path or 'its folder'} lacks the files of its vocabulary. Save the tokenizer there "
            "(tokenizer.save_pretrained), or give another: tokenizer=..."
        )


@record_function("tart/tokenizing")
def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_length: int | None
) -> list[dict[str, list[int]]]:
    """Return the token ids of each text or text pair, unpadded.

    Longer texts than `max_length` are truncated as by the tokenizer's `truncation=True`; a warning is logged once. A
    text without any token becomes a single neutral token.

    Raises:
        ValueError: When a text must be truncated, and the special tokens leave no room for it.
    """
    first = [text if isinstance(text, str) else text[0] for text in texts]
    second = [text[1] for text in texts if not isinstance(text, str)]
    if not first:
        return []
    if second and len(second) != len(first):
        pairs = [text for text in texts if not isinstance(text, str)]
        done = iter(tokenize(tokenizer, pairs, max_length))
        single = iter(tokenize(tokenizer, [text for text in texts if isinstance(text, str)], max_length))
        return [next(single) if isinstance(text, str) else next(done) for text in texts]
    encoded = encode(tokenizer, first, second or None)
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    rows = [{name: list(encoded[name][i]) for name in names} for i in range(len(texts))]
    if max_length is not None and warn_if_truncated(encoded["input_ids"], max_length):
        for i, row in enumerate(rows):
            if len(row["input_ids"]) > max_length:
                whole = None if encoded.encodings is None else encoded.encodings[i]
                rows[i] = _truncate_row(tokenizer, texts[i], row, whole, max_length)
    return [
        row if row["input_ids"] else {name: [neutral_token(tokenizer) * (name == "input_ids")] for name in names}
        for row in rows
    ]


def _truncate_row(
    tokenizer: PreTrainedTokenizerBase, text: Text, row: dict[str, list[int]], whole: Encoding | None, limit: int
) -> dict[str, list[int]]:
    """Return a row as the tokenizer truncates it, with its special tokens."""
    first, second = (text, None) if isinstance(text, str) else text
    added = tokenizer.num_special_tokens_to_add(pair=second is not None)
    if limit <= added:
        raise ValueError(
            f"Texts are truncated to {limit} tokens, of which the tokenizer needs {added} for its special tokens, so "
            f"nothing of a text is left; set max_length to {added + 1} or more."
        )
    if whole is None:  # tokenizers in Python keep no state
        again = tokenizer(first, second, truncation=True, max_length=limit, verbose=False)
        return {name: list(again[name]) for name in row}
    owners = whole.sequence_ids
    parts = [[place for place, owner in enumerate(owners) if owner == part] for part in (0, 1)]
    counts = _longest_first(len(parts[0]), len(parts[1]), limit - owners.count(None))
    kept = {i for part, count in zip(parts, counts, strict=True) for i in cut(part, count, tokenizer.truncation_side)}
    places = [place for place, owner in enumerate(owners) if owner is None or place in kept]
    return {name: [values[place] for place in places] for name, values in row.items()}


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens two texts keep when the longer one is truncated first, as tokenizers do."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def cut(ids: Sequence[T], limit: int | None, side: str) -> Sequence[T]:
    """Return the token ids of a text, truncated on one side."""
    if limit is None or len(ids) <= limit:
        return ids
    return ids[len(ids) - limit :] if side == "left" else ids[:limit]


@record_function("tart/tokenizing")
def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, list[int]]]:
    """Return the token ids of each text or joined text pair, untruncated and without special tokens.

    `token_type_ids` of pairs are 0 for the first text and 1 for the second.
    """
    split = [(text,) if isinstance(text, str) else text for text in texts]
    flat = [part for parts in split for part in parts]
    if not flat:
        return []
    ids = iter(encode(tokenizer, flat, add_special_tokens=False)["input_ids"])
    rows = []
    for parts in split:
        encoded = [list(next(ids)) for _ in parts]
        row = {"input_ids": [token for part in encoded for token in part]}
        if len(parts) > 1:
            row["token_type_ids"] = [segment for segment, part in enumerate(encoded) for _ in part]
        rows.append(row)
    return rows


def warn_if_truncated(rows: Sequence[Sized], limit: int | None) -> bool:
    """Return whether a row is longer than the limit, and log a warning once."""
    is_longer = limit is not None and any(len(row) > limit for row in rows)
    if is_longer:
        logger.warning_once(f"Some texts are longer than {limit} tokens; they are truncated.")
    return is_longer


def neutral_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of a special token, for texts without a token."""
    candidates = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.pad_token_id)
    return next((token for token in candidates if token is not None), 0)


def check_vocabulary(backbone: PreTrainedModel, rows: Iterable[Sequence[int]]) -> None:
    """Raise a ValueError when token ids are beyond the vocabulary of a backbone."""
    largest = max((max(row, default=0) for row in rows), default=0)
    if known_token(backbone, largest) is None:
        raise ValueError(
            f"The tokenizer gives the token id {largest}, which is beyond the vocabulary of the backbone: it is "
            "damaged, or of another model. Give the backbone's own: tokenizer=..."
        )


def known_token(backbone: PreTrainedModel, token: int | None) -> int | None:
    """Return a token id, or `None` where the backbone has no embedding for it, such as an added pad token."""
    size = getattr(backbone.get_input_embeddings(), "num_embeddings", None)
    return None if token is None or (size is not None and token >= size) else token


def collate(rows: Sequence[dict[str, list[int]]], pad_token_id: int | None) -> dict[str, Tensor]:
    """Pad rows of token ids on the right to tensors (n, length) int64, with the attention mask."""
    masked = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return {
        name: pad_sequence(
            [torch.tensor(row[name], dtype=torch.int64) for row in masked],
            batch_first=True,
            padding_value=(pad_token_id or 0) if name == "input_ids" else 0,
        )
        for name in masked[0]
    }


def pad_right(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of a batch to the right, so that positions count from the first token of each text.

    Args:
        batch (`dict[str, torch.Tensor]`):
            Tensors (n, length), `attention_mask` among them.
    """
    mask = batch["attention_mask"]
    if not is_traced() and (mask[:, :-1] >= mask[:, 1:]).all():
        return batch
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in batch.items()}


def truncate(batch: dict[str, Tensor], *limits: int | None) -> dict[str, Tensor]:
    """Truncate a right-padded batch to the smallest of the given limits, and log a warning once."""
    limit = min((limit for limit in limits if limit is not None), default=None)
    if not is_traced() and not warn_if_truncated(list(batch["attention_mask"][:1]), limit):
        return batch
    return {name: tensor[:, :limit] for name, tensor in batch.items()}
