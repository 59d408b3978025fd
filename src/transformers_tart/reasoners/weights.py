"""Checks of a reasoner's weights around loading, and their alignment in memory."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.errors import CorruptFileError
from transformers_tart.loading.weights import check_fit, check_not_pickled, read_headers


ALIGNMENT = 64  # bytes, to which torch aligns the memory that it allocates


def check_headers(
    name: str,
    model_class: type[PreTrainedModel],
    config: TartReasonerConfig,
    key_mapping: Mapping[str, str] | None,
    variant: str | None,
    **hub: Any,
) -> None:
    """Compare the headers of the weights with the config before memory is allocated."""
    headers = read_headers(name, variant, **hub)
    if headers is None:
        check_not_pickled(name, **hub)
        return
    for pattern, new in (key_mapping or {}).items():
        headers = {re.sub(pattern, new, key): header for key, header in headers.items()}
    if (config.num_hidden_layers or 0) > len(headers):
        raise CorruptFileError(
            f"The config of the reasoner in {name} has num_hidden_layers={config.num_hidden_layers}, but its "
            f"weights hold {len(headers)} tensors; download them again (force_download=True)."
        )
    with torch.device("meta"):
        expected = model_class(config).state_dict()
    check_fit(name, headers, expected)


def check_finite(name: str, model: nn.Module) -> None:
    """Raise a CorruptFileError when a weight is NaN or infinite."""
    wrong = [key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if wrong:
        raise CorruptFileError(
            f"The weights of the reasoner in {name} hold NaN or infinite values: {wrong[:3]}. Download "
            "them again (force_download=True)."
        )


def align_weights(model: nn.Module) -> None:
    """Copy weights on the CPU that do not start at an aligned address, as in files that are mapped into memory.

    Matrix products of unaligned weights are rounded differently, by the last bit, than those of the saved model.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        is_plain = type(tensor.data) is Tensor and tensor.device.type == "cpu"
        if is_plain and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


__all__ = ["align_weights", "check_finite", "check_headers"]
