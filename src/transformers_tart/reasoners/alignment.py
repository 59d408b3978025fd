"""Where weights lie in memory, which on some processors decides how sums are rounded."""

from torch import Tensor, nn


BOUNDARY = 64  # bytes, to which torch aligns what it allocates itself


def align_weights(module: nn.Module) -> None:
    """Copy weights on the CPU that do not start at a boundary to places that do.

    Weights that are read from a file lie where the file has them. Matrix products then round differently than those of
    the model that was saved, by the last bit.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        is_plain = type(tensor.data) is Tensor and tensor.device.type == "cpu"
        if is_plain and tensor.data_ptr() % BOUNDARY:
            tensor.data = tensor.data.clone()


__all__ = ["align_weights"]
