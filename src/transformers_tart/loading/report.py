"""Load backbones, and report missing and unexpected weights except those that are left out on purpose.

A backbone is loaded without the head of its checkpoint, and a tower without the rest of the model. transformers
reports all of that at every load; here its report is held back, and the unexplained weights are logged.
"""

import copy
import logging as python_logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto import modeling_auto
from transformers.utils import logging

from transformers_tart.loading.lock import one_at_a_time


logger = logging.get_logger(__name__)

# The part of a model that no hidden state depends on; transformers initializes it anew where a checkpoint has none.
UNREAD = "pooler"
SHOWN = 10  # names in a message


@one_at_a_time
def load_without_report(load: Callable[..., Any], *source: Any, **loading: Any) -> Any:
    """Call a `from_pretrained` while the report of transformers is held back; log the report if loading fails.

    Returns:
        `tuple[PreTrainedModel, dict]`: the model, and the missing and unexpected keys for [`report_rest`].
    """
    thread, records, loaded = threading.get_ident(), list[python_logging.LogRecord](), None

    def hold_back(record: python_logging.LogRecord) -> bool:
        is_report = record.thread == thread and record.funcName == "log_state_dict_report"
        if is_report:
            records.append(record)
        return not is_report

    source_logger = python_logging.getLogger("transformers.modeling_utils")
    source_logger.addFilter(hold_back)
    try:
        loaded = load(*source, output_loading_info=True, **loading)
    finally:
        source_logger.removeFilter(hold_back)
        for record in records if loaded is None else ():  # the error refers to it
            source_logger.handle(record)
    return loaded


def load_and_report(load: Callable[..., Any], name: str, **loading: Any) -> Any:
    """Load a whole model, and log the weights that are missing or unexpected for no known reason."""
    model, info = load_without_report(load, name, **loading)
    report_rest(name, model, info)
    return model


def report_rest(
    name: str, model: PreTrainedModel, info: dict[str, Iterable[str]], path: str = "", is_whole: bool = True
) -> None:
    r"""
    Log the missing and unexpected weights that are not left out on purpose.

    Args:
        name (`str`):
            Hub id or folder of the model.
        model (`PreTrainedModel`):
            The model that `AutoModel` makes of the config, on any device.
        info (`dict`):
            From [`load_without_report`].
        path (`str`, *optional*, defaults to `""`):
            Of the tower inside the model; empty for all of it.
        is_whole (`bool`, *optional*, defaults to `True`):
            Whether the whole model was loaded, so that missing keys begin with `path`.
    """
    inside = f"{path}." if path and is_whole else ""
    missing = sorted(key for key in info["missing_keys"] if key.startswith(inside) and UNREAD not in key.split("."))
    unexpected = sorted(_select_unexplained(info["unexpected_keys"], model, path)) if info["unexpected_keys"] else []
    if missing:
        logger.warning(f"{name} lacks weights of {type(model).__name__}, newly initialized: {_join(missing)}.")
    if unexpected:
        logger.warning(f"{name} holds weights that are no part of {type(model).__name__}: {_join(unexpected)}.")


def _join(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _select_unexplained(keys: Iterable[str], model: PreTrainedModel, path: str) -> list[str]:
    """Return the keys inside of the loaded part, and those of no other part of the saved model."""
    base = f"{model.base_model_prefix}."
    others = _parts_left_out(model, path)

    def is_left_out(key: str) -> bool:
        below = key.removeprefix(base)
        if below.startswith(f"{path}.") if path else key.startswith(base):
            return False
        return others is None or below.split(".")[0] in others

    return [key for key in keys if not is_left_out(key)]


@one_at_a_time
def _parts_left_out(model: PreTrainedModel, path: str) -> set[str] | None:
    """Return the names of the parts of a saved model that are not loaded; `None` if its class is not known."""
    own, named = _direct_names(model), model.config.architectures or ()
    parts = own if path else set()
    if type(model).__name__ in named:
        return parts
    head_class = _find_head_class(model.config)
    if head_class is None:
        return None if named else parts
    with torch.device("meta"):  # of a copy, since the class writes into its config
        whole = _direct_names(head_class._from_config(copy.deepcopy(model.config)))
    return parts | (whole - own - {model.base_model_prefix})


def _direct_names(model: PreTrainedModel) -> set[str]:
    """Return the names of the direct parts of a model, in the model and in its checkpoints."""
    weights = model.state_dict()
    return {name.split(".")[0] for name in (*weights, *revert_weight_conversion(model, weights))}


def _find_head_class(config: PreTrainedConfig) -> Any:
    """Return the class that a checkpoint was saved from; without its name in the config, the one for pretraining."""
    autos = {name: auto for name, auto in vars(modeling_auto).items() if name.startswith("AutoModelFor")}
    known = {name: auto._model_mapping.get(type(config), None) for name, auto in autos.items()}
    if not config.architectures:
        return known["AutoModelForPreTraining"]
    classes = (each for found in known.values() for each in (found if isinstance(found, tuple) else (found,)))
    return next((each for each in classes if each and each.__name__ in config.architectures), None)
