"""Adapters of peft as backbones: folders and repositories of adapters, and `PeftModel` objects."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from transformers_tart.backbones.sentence_encoders import take_encoder
from transformers_tart.errors import BackboneNotFoundError
from transformers_tart.reasoners.kv_cache import innermost


def unwrap(model: Any) -> Any:
    """Return the transformers model inside a `PeftModel`, adapters included, or inside a `SentenceTransformer`.

    Anything else is returned as it is.

    Raises:
        ValueError: On methods that are not in the layers of that model, such as prompt tuning.
    """
    model = take_encoder(model)[0]
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


@contextmanager
def explain_adapters(name: str) -> Iterator[None]:
    """Raise a BackboneNotFoundError with a way out where peft is absent, or of a version that transformers refuses."""
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
