"""The dtype in which `pipeline` and the commands load a backbone where the user gives none, or "auto".

`from_backbone` and `from_pretrained` of the classes have the default of transformers: the dtype of the weights.
They do not know the device on which the model will run, and load the same model on every machine.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig

from transformers_tart.loading.arguments import PLACEMENTS


BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16")  # of CPUs, as torch names them


def is_open(loading: Mapping[str, Any]) -> bool:
    """Return whether arguments of `from_pretrained` leave the dtype open."""
    return all(loading.get(name) in (None, "auto") for name in ("dtype", "torch_dtype"))


def with_dtype(loading: Mapping[str, Any], config: PreTrainedConfig, device: Any = None) -> dict[str, Any]:
    """Return arguments of `from_pretrained` with a dtype for a device, where they leave it open.

    A task with a support set, which has a dtype, and a quantized backbone keep their arguments.

    Args:
        loading (`dict`):
            The arguments.
        config (`PreTrainedConfig`):
            Config of a task or of a backbone.
        device (`int`, `str` or `torch.device`, *optional*):
            Device of the pipeline; the first accelerator, or the CPU, when neither it nor a device map is given.
    """
    base = getattr(config, "base_model_config", None) or config
    quantized = (loading.get("quantization_config"), getattr(base, "quantization_config", None))
    if not is_open(loading) or getattr(config, "has_support", False) or any(each is not None for each in quantized):
        return dict(loading)
    return {**loading, "dtype": choose_dtype(_find_device(device, loading.get("device_map")), base)}


def choose_dtype(device: torch.device, config: PreTrainedConfig) -> torch.dtype | str:
    """Return bfloat16 for a backbone with attention on a device that computes in it, else float32 for CPUs.

    Other accelerators have `"auto"`, the dtype of the weights, as in transformers. CPUs never have float16, which is
    their slowest dtype, and whose range the hidden states of some models leave. In bfloat16 the hidden states of a
    convolutional network (EfficientNet-Lite0) move by up to 12% of their norm, those of a vision transformer (DINOv2
    ViT-S) by up to 2%.
    """
    if _has_attention(config) and computes_bfloat16(device):
        return torch.bfloat16
    return torch.float32 if device.type == "cpu" else "auto"


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device has units for bfloat16, and does not emulate it."""
    if device.type == "cpu":
        return any(torch.cpu.get_capabilities().get(unit) for unit in BFLOAT16_UNITS)
    # other accelerators do not state it
    return device.type in ("cuda", "xpu") and torch.get_device_module(device).is_bf16_supported(False)


def _has_attention(config: Any) -> bool:
    """Return whether a config, or one in it, has attention heads."""
    parts = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
    return bool(getattr(config, "num_attention_heads", None)) or any(map(_has_attention, parts))


def _find_device(device: Any, device_map: Any) -> torch.device:
    """Return the device on which most of a backbone will run, by the arguments of `pipeline`."""
    given = list(device_map.values()) if isinstance(device_map, Mapping) else [device_map or device]
    if given and all(str(each) in ("-1", "cpu", "cpu:0", "disk") for each in given):
        return torch.device("cpu")
    named = [torch.device(each) for each in given if isinstance(each, (str, torch.device)) and each not in PLACEMENTS]
    accelerators = [each for each in named if each.type != "cpu"]
    if accelerators:
        return accelerators[0]
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
