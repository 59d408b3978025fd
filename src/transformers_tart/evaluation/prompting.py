"""In-context prompting: the same language model, asked in words.

The labelled examples are written one after another, then the query, and the model's likelihood of each label name
decides. Everything before the query is read once.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from transformers_tart.tokenization import backbone_max_length


logger = logging.get_logger(__name__)

QUESTION = "Sentence: {text}\nLabel:"
ANSWER = " {label}"
SEPARATOR = "\n\n"


def can_be_prompted(config: PreTrainedConfig) -> bool:
    """Whether a config describes a causal language model that was saved with its vocabulary head."""
    return bool(set(config.architectures or ()) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()))


@torch.inference_mode()
def prompt_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    support_texts: Sequence[str],
    support_labels: Sequence[int],
    query_texts: Sequence[str],
    label_names: Sequence[str],
    *,
    batch_size: int = 32,
) -> Tensor:
    r"""
    Mean log-probability of the tokens of each label name after the labelled examples and the query.

    Where the examples do not fit the model's context, the last ones of each class are kept, as many of one class as of
    another, and a warning says how many.

    Args:
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`):
            A causal language model with its vocabulary head, and its tokenizer.
        support_texts (`list[str]`), support_labels (`list[int]`):
            k texts and indices into `label_names`, in the order of the prompt.
        query_texts (`list[str]`):
            n texts.
        label_names (`list[str]`):
            What the prompt calls the classes.
        batch_size (`int`, *optional*, defaults to 32):
            Pairs of query and label of a forward pass.

    Returns:
        `torch.FloatTensor` of shape `(n, classes)`: float32, on the CPU.

    Raises:
        ValueError: When a query leaves no room for an example of each class.
    """
    questions = [_encode(tokenizer, QUESTION.format(text=text)) for text in query_texts]
    answers = [_encode(tokenizer, ANSWER.format(label=name)) for name in label_names]
    room = backbone_max_length(model)
    if room is not None:
        room -= max(map(len, questions)) + max(map(len, answers)) + 1
    shown = [
        _encode(tokenizer, QUESTION.format(text=text) + ANSWER.format(label=label_names[label]) + SEPARATOR)
        for text, label in zip(support_texts, support_labels, strict=True)
    ]
    kept = _balanced_tail([len(ids) for ids in shown], support_labels, room)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    prefix = _read(model, start + [token for i in kept for token in shown[i]])
    rows = [(question + answer, len(answer)) for question in questions for answer in answers]
    scores = [_score(model, prefix, rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
    return torch.cat(scores).reshape(len(questions), len(answers)).cpu()


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _balanced_tail(lengths: Sequence[int], labels: Sequence[int], room: int | None) -> list[int]:
    """Indices of the last examples of each class, equally many of each, that fit `room` tokens; in order."""
    per_class = {label: [i for i, other in enumerate(labels) if other == label] for label in set(labels)}
    most = max(map(len, per_class.values()))
    for count in range(most, 0, -1):
        kept = sorted(i for members in per_class.values() for i in members[-count:])
        if room is None or sum(lengths[i] for i in kept) <= room:
            if len(kept) < len(labels):
                logger.warning(
                    f"{len(labels) - len(kept)} of {len(labels)} examples do not fit the prompt, which has room for "
                    f"{room} tokens of them."
                )
            return kept
    raise ValueError(
        f"The model's context leaves {room} tokens for examples, too few for one of each class: shorten the texts."
    )


def _read(model: PreTrainedModel, ids: list[int]) -> DynamicCache:
    """Keys and values of the prompt, for one row."""
    return model(input_ids=torch.tensor([ids], device=model.device), use_cache=True).past_key_values


def _score(model: PreTrainedModel, prefix: DynamicCache, rows: Sequence[tuple[list[int], int]]) -> Tensor:
    """Mean log-probabilities (rows,) of the last tokens of each row, which has (its tokens, how many are meant)."""
    tokens = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True).to(model.device)
    lengths = torch.tensor([len(ids) for ids, _ in rows], device=model.device)[:, None]
    meant = torch.tensor([count for _, count in rows], device=model.device)[:, None]
    place = torch.arange(tokens.shape[1], device=model.device)
    mask = torch.cat([torch.ones(len(rows), prefix.get_seq_length(), device=model.device), place < lengths], dim=1)
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(len(rows))
    logits = model(input_ids=tokens, attention_mask=mask.long(), past_key_values=cache, use_cache=True).logits
    is_meant = (place[1:] >= lengths - meant) & (place[1:] < lengths)
    # of a large vocabulary, only the rows that count are kept in float32
    log_probs = logits[:, :-1][is_meant].float().log_softmax(-1).gather(-1, tokens[:, 1:][is_meant][:, None])[:, 0]
    return torch.zeros(is_meant.shape, device=model.device).masked_scatter(is_meant, log_probs).sum(1) / meant[:, 0]


__all__ = ["can_be_prompted", "prompt_log_probs"]
