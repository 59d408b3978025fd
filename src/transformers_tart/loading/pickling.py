"""Pickling of models that have been used."""

from typing import Any

from torch import nn
from torch.nn.utils import parametrizations, parametrize
from transformers import PreTrainedModel
from transformers.utils import output_capturing


HOOKS = ("_forward_hooks", "_load_state_dict_pre_hooks")
# Modules whose inner functions become hooks: of captured outputs, which transformers installs again, and of weight
# norm, which renames weights in checkpoints older than torch 2.
INNER_HOOKS = (output_capturing.__name__, parametrizations.__name__)
HOOKS_INSTALLED = "_output_capturing_hooks_installed"


def state_without_capture_hooks(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module without the hooks that transformers leaves on it when it is first called.

    Those are functions inside functions, which cannot be pickled; transformers puts them back at the next call. The
    module keeps its own, for another thread may be using it. Hooks of the user are part of the state.
    """
    return vars(_strip(module, {}))


def restore(module: nn.Module) -> None:
    """Complete a module that was made anew from [`state_without_capture_hooks`], perhaps in a new process."""
    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            # transformers notes which outputs can be recorded when the first model of a class is built
            output_capturing._CAN_RECORD_REGISTRY[part] = part._can_record_outputs
        if parametrize.is_parametrized(part):
            parametrize._inject_new_class(part)
            for name in part.parametrizations:  # type: ignore[union-attr]
                parametrize._inject_property(part, name)


def _strip(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """Return a twin of a module that shares its tensors."""
    if id(module) in known:
        return known[id(module)]
    # torch makes a class for each module with parametrizations, such as weight norm, and refuses to pickle it
    twin: nn.Module = object.__new__(parametrize.type_before_parametrizations(module))
    known[id(module)] = twin
    state = dict(vars(module))
    state["_modules"] = {
        name: None if child is None else _strip(child, known) for name, child in module._modules.items()
    }
    for kind in HOOKS:
        hooks = state[kind]
        kept = {key: hook for key, hook in dict(hooks).items() if _can_be_pickled(hook)}
        if len(kept) < len(hooks):
            state[kind] = type(hooks)(kept)
    state.pop(HOOKS_INSTALLED, None)  # as before the first call
    vars(twin).update(state)
    return twin


def _can_be_pickled(hook: Any) -> bool:
    function = getattr(hook, "hook", hook)  # torch wraps some
    return getattr(function, "__module__", None) not in INNER_HOOKS
