"""Facts about the machine and the versions that a measurement was made with."""

import contextlib
import os
import platform

import torch
from transformers import __version__ as transformers_version


def default_device() -> torch.device:
    """Return the first accelerator, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as on the command line, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def _processor_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:  # Linux only
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _accelerator_name() -> str | None:
    device = default_device()
    if device.type == "cpu":
        return None
    return getattr(torch.get_device_module(device), "get_device_name", lambda: device.type)()


def machine_facts() -> dict[str, str | int | None]:
    """Return processor, number of cores, number of threads of torch, and accelerator."""
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "accelerator": _accelerator_name(),
    }


def version_facts() -> dict[str, str]:
    """Return the versions of Python, torch, transformers and this package."""
    from transformers_tart import __version__

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers_version,
        "transformers-tart": __version__,
    }


def describe(machine: dict[str, str | int | None], versions: dict[str, str]) -> str:
    """Return machine and versions as two lines of text."""
    accelerator = machine["accelerator"] or "no accelerator"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} torch threads, {accelerator}\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


__all__ = ["default_device", "describe", "dtype_name", "machine_facts", "version_facts"]
