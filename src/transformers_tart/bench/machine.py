"""Where a measurement was made."""

import os
import platform

import torch
from transformers import __version__ as transformers_version


def processor_name() -> str:
    """The model of the processor, as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerator_name() -> str | None:
    """The model of the first accelerator; `None` without one."""
    device = default_device()
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    return module.get_device_name() if hasattr(module, "get_device_name") else device.type


def default_device() -> torch.device:
    """The first accelerator, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def dtype_name(dtype: torch.dtype) -> str:
    """As it is written on the command line."""
    return str(dtype).removeprefix("torch.")


def machine_facts() -> dict[str, str | int | None]:
    """Processor, cores, threads of torch, accelerator."""
    return {
        "processor": processor_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator_name(),
    }


def version_facts() -> dict[str, str]:
    """Versions of what takes part."""
    from transformers_tart import __version__

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers_version,
        "transformers-tart": __version__,
    }


def describe(machine: dict[str, str | int | None], versions: dict[str, str]) -> str:
    """Both as two lines of text."""
    accelerator = machine["accelerator"] or "no accelerator"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} torch threads, {accelerator}\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


__all__ = ["default_device", "describe", "dtype_name", "machine_facts", "version_facts"]
