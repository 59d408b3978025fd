"""Texts to padded batches of token ids, for any tokenizer."""

import copy
from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeVar

import torch
from tokenizers import Encoding
from torch import Tensor
from torch.profiler import record_function
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.checks.arguments import shorten
from transformers_tart.checks.tracing import is_traced
from transformers_tart.inputs.examples import Text


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
    """Encode whole texts, or text pairs, whatever truncation and padding the tokenizer is set to.

    Both are state of the backend that all threads share, so they are never set here; where another thread sets them
    between two calls, the texts are encoded again by a copy.

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
    """Raise a ValueError when every word is unknown: transformers makes such a tokenizer where a folder has none."""
    if tokenizer.vocab_size > MOST_SPECIAL:  # the special tokens of large vocabularies take long to list
        return
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if len(tokenizer) <= len(added) and all(token.special for token in added.values()):
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} special tokens and no other, so that all texts are alike: "
            f"{tokenizer.name_or_path or 'where it was loaded from'} lacks the files of its vocabulary. Save the "
            "tokenizer there (tokenizer.save_pretrained), or give another: tokenizer=..."
        )


@record_function("tart/tokenizing")
def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], max_length: int | None
) -> list[dict[str, list[int]]]:
    """Return the token ids of each text or text pair, unpadded.

    What is longer than `max_length` is truncated as the tokenizer does it with `truncation=True`, which is logged
    once. A text without any token, which happens to tokenizers that add none, becomes a single neutral token.

    Raises:
        ValueError: When the special tokens leave no room for a text that is cut.
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
            f"Texts are cut at {limit} tokens, of which the tokenizer needs {added} for its special tokens, so that "
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
    """Return how many tokens two texts keep where the longer one is truncated first, as tokenizers do it."""
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def cut(ids: Sequence[T], limit: int | None, side: str) -> Sequence[T]:
    """Return what is left of the token ids of a text when one side is truncated."""
    if limit is None or len(ids) <= limit:
        return ids
    return ids[len(ids) - limit :] if side == "left" else ids[:limit]


def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[dict[str, list[int]]]:
    """Return the token ids of each text, or of each text and its pair one after the other, whole and without special
    tokens.

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
    if not is_traced() and (mask[:, :-1] >= mask[:, 1:]).all():
        return batch
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    return {name: tensor.gather(1, order) for name, tensor in batch.items()}


def truncate(batch: dict[str, Tensor], *limits: int | None) -> dict[str, Tensor]:
    """Cut the ends of a right-padded batch at the smallest of the limits that are given, which is said once."""
    limit = min((limit for limit in limits if limit is not None), default=None)
    if not is_traced() and not warn_if_truncated(list(batch["attention_mask"][:1]), limit):
        return batch
    return {name: tensor[:, :limit] for name, tensor in batch.items()}


__all__ = [
    "TRUNCATION_SIDES",
    "check_tokenizer",
    "check_vocabulary",
    "collate",
    "cut",
    "encode",
    "known_token",
    "neutral_token",
    "pad_right",
    "tokenize",
    "tokenize_parts",
    "truncate",
    "warn_if_truncated",
]
