"""Forward passes of backbones: their arguments, limits of length, and hidden states."""

import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformers_tart.inputs.tokenization import check_tokenizer
from transformers_tart.inputs.views import View
from transformers_tart.reasoners.kv_cache import accepts


NO_LIMIT = int(1e6)  # tokenizers without a limit of their own have a huge one
# Global, since threads may hold one backbone through different objects, none of which could own the lock.
_SWITCHING = threading.Lock()


def text_encoder(backbone: PreTrainedModel) -> PreTrainedModel:
    """Return the part of a backbone that reads text: the encoder of an encoder-decoder, else all of it."""
    return backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone


def without_cache(backbone: PreTrainedModel) -> dict[str, bool]:
    """Return the argument that switches the KV cache of a backbone off, if it takes one."""
    return {"use_cache": False} if accepts(backbone, "use_cache") else {}


def switch_length(backbone: PreTrainedModel) -> int | None:
    """Return the length above which a backbone rotates all positions of a forward pass differently, if any."""
    # with such rotary embeddings the longest row of a batch changes the others
    parameters = getattr(backbone.config.get_text_config(), "rope_parameters", None) or {}
    if parameters.get("rope_type") not in ("longrope", "dynamic"):
        return None
    return parameters.get("original_max_position_embeddings") or backbone_max_length(backbone)


def rows_beyond_switch(backbone: PreTrainedModel, lengths: Iterable[int]) -> set[int]:
    """Return the indices of rows above the [`switch_length`], which may share no batch."""
    limit = switch_length(backbone)
    return set() if limit is None else {i for i, length in enumerate(lengths) if length > limit}


def are_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Return whether hidden states (..., layers, hidden) differ by no more than rounding in every layer."""
    # medians, since a few dimensions of many models are thousands of times as large as the others
    tolerance = 1e-3 if dtype in (torch.float32, torch.float64) else 5e-2
    gap = (found - expected).float().abs().median(-1).values
    return bool((gap <= tolerance * expected.float().abs().median(-1).values).all())


def input_device(backbone: PreTrainedModel) -> torch.device:
    """Return the device for the inputs of a backbone; hooks of a device map move them on."""
    device = backbone.device
    return torch.device("cpu") if device.type == "meta" else device


@record_function("tart/backbone")
def run_backbone(backbone: PreTrainedModel, all_layers: bool = False, **inputs: Any) -> Any:
    """Run a forward pass without gradients; return the output, with all hidden states if asked."""
    device = input_device(backbone)
    inputs = {name: given.to(device) if isinstance(given, Tensor) else given for name, given in inputs.items()}
    # rotary embeddings that switch with the length change a buffer of the backbone: one pass at a time
    with torch.no_grad(), nullcontext() if switch_length(backbone) is None else _SWITCHING:
        return backbone(**inputs, return_dict=True, **({"output_hidden_states": True} if all_layers else {}))


def run_views(backbone: PreTrainedModel, views: Sequence[View], **inputs: Any) -> list[tuple[Tensor, ...]]:
    """Run a forward pass; return the hidden states (n, length, hidden) of the layers of each view."""
    output = run_backbone(backbone, any(view.layers != -1 for view in views), **inputs)
    return [layers_of(output, view) for view in views]


def layers_of(output: Any, view: View) -> tuple[Tensor, ...]:
    """Return the hidden states of the layers of a view; the last layer alone is the output of the backbone."""
    if view.layers == -1:
        return (output.last_hidden_state,)
    return tuple(output.hidden_states[i] for i in view.indices(len(output.hidden_states)))


def reads_forward(backbone: PreTrainedModel) -> bool:
    """Return whether no token changes the hidden states before it, as in a causal language model."""
    if backbone.config.is_encoder_decoder:
        return False
    # several tokens, since some are alike, such as those of padding
    size = int(getattr(backbone.get_input_embeddings(), "num_embeddings", 2))
    tokens = torch.tensor([[0, token] for token in (0, min(1, size - 1), size // 3, size // 2, size - 1)])
    hidden = run_backbone(backbone, input_ids=tokens, **without_cache(backbone)).last_hidden_state[:, 0]
    return are_close(hidden[1:], hidden[:1].expand_as(hidden[1:]), backbone.dtype)


def backbone_max_length(backbone: PreTrainedModel) -> int | None:
    """Return the length in tokens of the longest input of a backbone, `None` without a limit."""
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
    """Return the smallest limit of the user, the tokenizer and the backbone; `None` without any."""
    check_tokenizer(tokenizer)
    own = tokenizer.model_max_length
    limits = [max_length, own if own and own < NO_LIMIT else None, backbone_max_length(backbone)]
    return min((limit for limit in limits if limit is not None), default=None)
