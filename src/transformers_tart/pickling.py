"""Pickling of models that have been used."""

from typing import Any

from torch import nn
from transformers.utils import output_capturing


HOOKS_INSTALLED = "_output_capturing_hooks_installed"


def state_without_capture_hooks(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module without the hooks that transformers leaves on it when it is first called.

    Those are functions inside functions, which cannot be pickled; transformers puts them back at the next call. The
    module keeps its own, for another thread may be using it. Hooks of the user are part of the state.
    """
    return vars(_strip(module, {}))


def _strip(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """A twin of a module that shares its tensors."""
    if id(module) in known:
        return known[id(module)]
    twin = known[id(module)] = object.__new__(type(module))
    state = dict(vars(module))
    state["_modules"] = {name: child and _strip(child, known) for name, child in module._modules.items()}
    hooks = {key: hook for key, hook in module._forward_hooks.items() if not _captures(hook)}
    if len(hooks) < len(module._forward_hooks):
        state["_forward_hooks"] = type(module._forward_hooks)(hooks)
    if state.get(HOOKS_INSTALLED):
        state[HOOKS_INSTALLED] = False
    vars(twin).update(state)
    return twin


def _captures(hook: Any) -> bool:
    return getattr(hook, "__module__", None) == output_capturing.__name__


__all__ = ["state_without_capture_hooks"]
