"""Measures how well a language model predicts text."""

import math
from collections.abc import Sequence

import torch
from corpus import windows
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from transformers_tart.backbones.forward import backbone_max_length


LONGEST_WINDOW = 2048


@torch.no_grad()
def bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], batch_size: int = 8
) -> float:
    """Bits that the model needs for a byte of UTF-8 text.

    Each document is read after the token that begins or ends texts, in windows of the context and at most 2,048
    tokens; every one of its tokens is predicted once.
    """
    length = min(backbone_max_length(model) or LONGEST_WINDOW, LONGEST_WINDOW)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    rows = [
        window
        for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        for window in windows([begin, *ids], length)
    ]
    rows.sort(key=len)
    nats = 0.0
    for start in range(0, len(rows), batch_size):
        batch = [torch.tensor(row) for row in rows[start : start + batch_size]]
        tokens = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(model.device)
        targets = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100).to(model.device)
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
        nats += cross_entropy(logits.flatten(0, 1).float(), targets[:, 1:].flatten(), reduction="sum").item()
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)
