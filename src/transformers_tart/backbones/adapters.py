"""Adapters of peft as backbones: folders and repositories of adapters, and `PeftModel` objects."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file, find_adapter_config_file

from transformers_tart.backbones.forward import innermost
from transformers_tart.errors import BackboneNotFoundError, CorruptFileError


ADAPTER_CONFIG = "adapter_config.json"
OPTIONAL = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}


def unwrap(model: Any) -> Any:
    """Return the transformers model inside a `PeftModel`, adapters included; anything else as it is.

    Raises:
        ValueError: On methods that are not in the layers of that model, such as prompt tuning.
    """
    inner = innermost(model) if isinstance(model, nn.Module) else model
    if inner is model or not isinstance(inner, PreTrainedModel):
        return model
    config = getattr(model, "active_peft_config", None)
    if getattr(config, "is_prompt_learning", False):
        raise ValueError(
            f"The peft method {getattr(config.peft_type, 'value', config.peft_type)} adds to the input of a model and "  # type: ignore[union-attr]
            "not to its layers, which a frozen backbone cannot have; give a model with LoRA or the like, or one "
            "without an adapter."
        )
    return inner


def has_adapters(backbone: nn.Module) -> bool:
    """Return whether layers of a backbone have adapters of peft, which are not merged into its weights."""
    return any(hasattr(module, "merged_adapters") for module in backbone.modules())


def base_of_adapter(name: str, **hub: Any) -> tuple[str, str | None] | None:
    r"""
    Find the model that an adapter was made for.

    Args:
        name (`str`):
            Hub id or folder.
        hub:
            As in `cached_file` of transformers.

    Returns:
        `tuple[str, str | None]`, *optional*: name and revision of the base model, which is the repository itself where
        that holds a whole model beside the adapter; `None` where it holds no adapter.

    Raises:
        CorruptFileError: When the config of the adapter names no base model.
    """
    path = find_adapter_config_file(name, **hub)
    if path is None:
        return None
    if cached_file(name, CONFIG_NAME, **hub, **OPTIONAL) is not None:
        return name, hub.get("revision")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        base, revision = config["base_model_name_or_path"], config.get("revision")
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise CorruptFileError(f"{ADAPTER_CONFIG} of {name} names no base model: {err}") from err
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise CorruptFileError(
            f"{ADAPTER_CONFIG} of {name} names the base model {base!r} at revision {revision!r}; both must be strings."
        )
    return base, revision


@contextmanager
def explain_adapters(name: str) -> Iterator[None]:
    """Say what to change where peft is absent, or of a version that transformers refuses."""
    try:
        import peft  # noqa: F401

        yield
    except (ImportError, ValueError) as err:
        if "peft" not in str(err).lower():
            raise
        raise BackboneNotFoundError(
            f"{name} is an adapter of peft, which the installed transformers cannot load with the installed peft "
            f"({err}). Change the version of one of the two, pip install -U peft or an older "
            "transformers; or merge the adapter into its base model (merge_and_unload of peft), save that and take it "
            "as backbone."
        ) from err


__all__ = ["base_of_adapter", "explain_adapters", "has_adapters", "unwrap"]
