"""Rows of the vocabulary head of a language model, of which the backbone is the part below that head."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from transformers_tart.checks.bounds import check_inside, read_object
from transformers_tart.loading.auto import find_model
from transformers_tart.loading.download import explain_damage, find_file
from transformers_tart.loading.lock import one_at_a_time


# Fields of configs by which models multiply or divide their logits, and the bound of the logits.
FACTORS, DIVISORS, SOFTCAP = ("logit_scale", "lm_head_multiplier"), ("logits_scaling",), "final_logit_softcapping"

ReadTensor = Callable[[Sequence[int]], Tensor]


class HeadRows(NamedTuple):
    """Rows (tokens, hidden) and bias (tokens,) of a vocabulary head, float32, the scale of its logits included."""

    rows: Tensor
    bias: Tensor
    softcap: float | None = None


def head_of_model(model: Any) -> nn.Module | None:
    """Return the vocabulary head of a loaded model with a head of its own; `None` for others, and for tied weights."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    weight = getattr(head, "weight", None)
    is_tied = weight is None or weight is getattr(model.get_input_embeddings(), "weight", None)
    return None if is_tied else head


def read_head(
    backbone: PreTrainedModel, ids: Sequence[int], head: nn.Module | None, name: str | None, **hub: Any
) -> HeadRows | None:
    """Return rows of the vocabulary head of a backbone.

    Args:
        backbone (`PreTrainedModel`), ids (`list[int]`):
            The part of the model below the head, and the tokens.
        head (`nn.Module`, *optional*):
            The head, where it is loaded and has weights of its own.
        name (`str`, *optional*), hub:
            Hub id or folder of the repository with the head, of which only the rows are read.

    Returns:
        [`HeadRows`], `None` where the model has no such head, or it cannot be found.
    """
    found: tuple[Tensor, Tensor | None] | None
    if head is not None:
        weight: Any = head.weight
        bias: Any = getattr(head, "bias", None)
        found = weight[list(ids)].detach(), None if bias is None else bias[list(ids)].detach()
    else:
        found = _find_rows(backbone, list(ids), name, hub)
    return None if found is None else _scaled(backbone.config, *found)


def _find_rows(
    backbone: PreTrainedModel, ids: list[int], name: str | None, hub: dict[str, Any]
) -> tuple[Tensor, Tensor | None] | None:
    """Return rows and bias from the embeddings of a backbone where both are tied, else from the files."""
    described = _describe_head(backbone.config)
    if described is None:
        return None
    path, is_tied, has_bias = described
    weight: Any = getattr(backbone.get_input_embeddings(), "weight", None) if is_tied else None
    is_loaded = isinstance(weight, Tensor) and weight.device.type != "meta" and weight.is_floating_point()
    if is_loaded and not has_bias:
        return weight[ids].detach(), None
    files = None if name is None else _find_tensors(name, hub)
    if files is None:
        return None
    key = _only_key(files, f"{path}.weight")
    rows = weight[ids].detach() if is_loaded else None if key is None else _read_rows(files[key], key, ids)
    if rows is None or not has_bias:
        return None if rows is None else (rows, None)
    key = _only_key(files, f"{path}.bias")
    return None if key is None else (rows, _read_rows(files[key], key, ids))


@one_at_a_time
def _describe_head(config: PreTrainedConfig) -> tuple[str, bool, bool] | None:
    """Return the name of the head inside a causal language model, whether it is tied, and whether it has a bias."""
    if type(config) not in AutoModelForCausalLM._model_mapping:
        return None
    # transformers makes the dtype of a model the default of all threads while it builds it, and notes it in the config
    given: dict[str, Any] = {"dtype": torch.get_default_dtype(), "trust_remote_code": False}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), **given)
    head: Any = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return None
    path = next(path for path, module in model.named_modules() if module is head)
    is_tied = head.weight is model.get_input_embeddings().weight or bool(config.get_text_config().tie_word_embeddings)
    return path, is_tied, head.bias is not None


def _find_tensors(name: str, hub: dict[str, Any]) -> dict[str, str] | None:
    """Return the file of each tensor of a repository, `None` without safetensors files."""
    source = find_model(name, **hub)
    name, place = source.base_name, dict(source.base_hub)
    path = find_file(name, SAFE_WEIGHTS_NAME, **place)
    if path is not None:
        with safe_open(path, framework="pt") as file:
            return dict.fromkeys(file.keys(), path)
    index = find_file(name, SAFE_WEIGHTS_INDEX_NAME, **place)
    if index is None:
        return None
    weight_map: Mapping[str, str] = read_object(index, f"{SAFE_WEIGHTS_INDEX_NAME} of {name}")["weight_map"]
    shards = {file: check_inside("weight_map", file) for file in {*weight_map.values()}}
    paths = {file: str(cached_file(name, shard, **place)) for file, shard in shards.items()}
    return {key: paths[file] for key, file in weight_map.items()}


def _only_key(files: Mapping[str, str], key: str) -> str | None:
    """Return the key of a tensor in files, of a part of a larger model too; `None` where none or several fit."""
    found = [each for each in files if each == key or each.endswith(f".{key}")]
    return found[0] if len(found) == 1 else None


def _read_rows(path: str, key: str, ids: list[int]) -> Tensor:
    """Read some rows of a tensor in a file, and nothing else of it."""
    with explain_damage(path), safe_open(path, framework="pt") as file:
        part = file.get_slice(key)
        return torch.cat([part[token : token + 1] for token in ids])


def _scaled(config: PreTrainedConfig, rows: Tensor, bias: Tensor | None) -> HeadRows:
    """Return rows with the scale of the logits that a config has."""
    fields, scale = config.get_text_config(), 1.0
    for field in FACTORS:
        scale *= float(getattr(fields, field, None) or 1.0)
    for field in DIVISORS:
        scale /= float(getattr(fields, field, None) or 1.0)
    softcap = getattr(fields, SOFTCAP, None)
    offset = rows.new_zeros(len(rows)) if bias is None else bias
    return HeadRows(rows.float().cpu() * scale, offset.float().cpu() * scale, softcap or None)
