"""Settings of a backbone: what its config says that may change an embedding."""

import json
from collections.abc import Mapping
from typing import Any

from transformers.configuration_utils import PreTrainedConfig


# Of a backbone's config, what changes no embedding.
UNREAD = {
    *PreTrainedConfig().to_dict().keys() - {"model_type"},
    "_commit_hash",
    "name_or_path",
    "quantization_config",
    "tie_word_embeddings",
    "use_cache",
}


def settings_of(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the settings of a config and, by dotted names, of the configs in it, as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(_flatten(config.to_dict()), default=str))
    return found


def differing_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that both have, with different values; versions may know more or fewer."""
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


def _flatten(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in UNREAD or name.endswith("_token_id"):
            continue
        if isinstance(value, dict) and "model_type" in value:
            found |= {f"{name}.{inner}": setting for inner, setting in _flatten(value).items()}
        else:
            found[name] = value
    return found


__all__ = ["differing_settings", "settings_of"]
