"""Loading through the Auto classes of transformers, without running code or unpickling files of a repository.

transformers itself asks on the terminal whether the code of a repository may run. Here the caller allows it by
`trust_remote_code=True`, and nothing else does.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import CONFIG_NAME, find_adapter_config_file

from transformers_tart.checks.bounds import CODE_FIELDS, read_object
from transformers_tart.errors import CorruptFileError
from transformers_tart.loading.download import HUB, explain_damage, explain_failures, find_file, select
from transformers_tart.loading.lock import one_at_a_time
from transformers_tart.loading.weights import Build, check_backbone, check_not_pickled


OWN = "tart"  # the beginning of the model types of this package
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# The files in which a repository may name code of its own, under `auto_map`.
CODE_FILES = (CONFIG_NAME, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS_FIELD = "transformers_weights"  # names a file of weights


@dataclass(frozen=True)
class ModelSource:
    """A repository or folder of a model, or of a peft adapter of one.

    Attributes:
        name: its Hub id or folder.
        hub: where and how it is downloaded.
        is_adapter: whether it holds an adapter.
        base_name: the repository of the whole model, which is another one for an adapter alone.
        base_hub: where and how that is downloaded.
        config: config of the whole model.
    """

    name: str
    hub: Mapping[str, Any]
    is_adapter: bool
    base_name: str
    base_hub: Mapping[str, Any]
    config: PreTrainedConfig


def find_model(name: str | os.PathLike, **hub: Any) -> ModelSource:
    """Load the config of a model, or of the model that an adapter was made for.

    Raises:
        CorruptFileError: When files are damaged, or the config of an adapter names no base model.
        ValueError: When the repository needs code of its own that may not run.
        OSError: When there is no such repository, or it has no config.
    """
    name, files = os.fspath(name), select(hub)
    with explain_failures(name):
        base = base_of_adapter(name, **files)
    base_name, place = (name, {}) if base is None or base[0] == name else (base[0], {"revision": base[1]})
    base_hub = {**files, **place, "subfolder": ""} if place else files
    config = load_auto(AutoConfig, base_name, **base_hub, trust_remote_code=hub.get("trust_remote_code"))
    return ModelSource(name, files, base is not None, base_name, base_hub, config)


def base_of_adapter(name: str, **hub: Any) -> tuple[str, str | None] | None:
    """Return name and revision of the model that an adapter was made for, `None` where a repository holds no adapter.

    Of a repository with a whole model beside the adapter, that is the repository itself.

    Raises:
        CorruptFileError: When the config of the adapter names no base model.
    """
    path = find_adapter_config_file(name, **hub)
    if path is None:
        return None
    if find_file(name, CONFIG_NAME, **hub) is not None:
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


def load_auto(auto_class: Any, name: str | os.PathLike, **loading: Any) -> Any:
    """Load a config, a tokenizer or another processor through an Auto class; `loading` as in its `from_pretrained`.

    Raises:
        CorruptFileError: When files are damaged.
        ValueError: When the repository needs code of its own that may not run.
    """
    trusts, name = loading.pop("trust_remote_code", None) is True, os.fspath(name)
    hub = select(loading)
    with explain_damage(name):
        check_files(name, trusts, **hub)
        try:
            return auto_class.from_pretrained(name, trust_remote_code=trusts, **loading)
        except ValueError as err:
            if trusts or "trust_remote_code" not in str(err):
                raise
            raise ValueError(
                f"{name} needs code of its own{_describe_code(name, hub)}, which does not run by default. Read it, "
                "and if you trust it pass trust_remote_code=True."
            ) from err


@one_at_a_time
def load_auto_model(auto_class: Any, source: str | os.PathLike | ModelSource, **loading: Any) -> Any:
    """Load a backbone through an Auto class, from safetensors only; `loading` as in its `from_pretrained`.

    Raises:
        CorruptFileError: When files are damaged or pickled, or the config asks for more than the weights hold.
        ValueError: When the repository needs code of its own that may not run.
    """
    if not isinstance(source, ModelSource):
        source = find_model(source, **select(loading, HUB))
    check_weights(source, **loading)
    return load_auto(auto_class, source.name, **{**loading, "use_safetensors": True})


@one_at_a_time
def build_empty(config: PreTrainedConfig) -> nn.Module:
    """Build the model that `AutoModel` makes of a config; an empty module where only remote code could build it."""
    if type(config) not in AutoModel._model_mapping:
        return nn.Module()
    return AutoModel.from_config(config, trust_remote_code=False)


def check_weights(source: ModelSource, build: Build = build_empty, **loading: Any) -> None:
    """Raise an error when the weights of a backbone are pickled, or its config asks for more than they hold."""
    if loading.get("use_safetensors") is False:
        raise ValueError(
            "use_safetensors is False, but this package unpickles no weights; load the model with transformers and "
            "pass the model itself."
        )
    if loading.get("gguf_file") is not None or loading.get("state_dict") is not None:
        return
    with explain_damage(source.name):
        if source.is_adapter and find_file(source.name, ADAPTER_WEIGHTS, **source.hub) is None:
            check_not_pickled(source.name, **source.hub)
        check_backbone(source.base_name, source.config, build, loading.get("variant"), **source.base_hub)


def check_files(name: str, trusts_code: bool = False, **hub: Any) -> None:
    """Check the JSON files of a backbone's repository before transformers reads them.

    Raises:
        CorruptFileError: When one is no JSON object, or nested too deep.
        ValueError: When the config names pickled weights, or code that may not run.
    """
    for file in CODE_FILES:
        path = find_file(name, file, **hub)
        if path is None:
            continue
        try:
            fields = read_object(path, f"{file} of {name}")
        except ValueError as err:
            raise CorruptFileError(f"{err} Download it again (force_download=True).") from err
        if file == CONFIG_NAME:
            _check_config(name, fields, trusts_code)


def _check_config(name: str, fields: dict[str, Any], trusts_code: bool) -> None:
    """Check the fields of a config and of the objects in it, level by level."""
    level: list[tuple[str, Any]] = list(fields.items())
    while level:
        for field, value in level:
            if field == "model_type" and not isinstance(value, str):
                raise CorruptFileError(f"config.json of {name} has model_type={value!r}, which must be a string.")
            is_safe = value is None or str(value).endswith((".safetensors", ".safetensors.index.json"))
            if field == WEIGHTS_FIELD and not is_safe:
                raise ValueError(
                    f"config.json of {name} has {field}={value!r}; weights are read from safetensors files only."
                )
            if field in CODE_FIELDS and "/" in str(value) and not trusts_code:
                raise ValueError(
                    f"config.json of {name} has {field}={value!r}, code of another repository, which does not run by "
                    "default: if you trust it pass trust_remote_code=True."
                )
        parts = [each for _, value in level for each in _as_list(value) if isinstance(each, dict)]
        level = [pair for part in parts for pair in part.items()]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _describe_code(name: str, hub: dict[str, Any]) -> str:
    """Return the classes that a repository has code of, for messages."""
    named = set()
    for file in CODE_FILES:
        path = find_file(name, file, **hub)
        auto_map = None if path is None else read_object(path, file).get("auto_map")
        for reference in auto_map.values() if isinstance(auto_map, dict) else ():
            named |= {str(each) for each in _as_list(reference) if each is not None}
    return f" ({', '.join(sorted(named))})" if named else ""


def is_own(config: PreTrainedConfig) -> bool:
    """Return whether a config, or one in it, is of this package, which no backbone's may be."""
    kinds = [config, *(getattr(config, key, None) for key in config.sub_configs)]
    return any(str(getattr(kind, "model_type", "")).startswith(OWN) for kind in kinds)
