"""What prepares inputs for a backbone: its tokenizer, image processor or feature extractor."""

import contextlib
from typing import Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

from transformers_tart.backbones import locate
from transformers_tart.backbones.adapters import base_of_adapter
from transformers_tart.modeling_tart import TartPreTrainedModel


# For each modality the class that loads, and the argument of `pipeline` that takes what it loads.
LOADERS: dict[str, tuple[Any, str]] = {
    "text": (AutoTokenizer, "tokenizer"),
    "image": (AutoImageProcessor, "image_processor"),
    "audio": (AutoFeatureExtractor, "feature_extractor"),
}


def load_processor(model: TartPreTrainedModel) -> Any:
    r"""
    Load the tokenizer, image processor or feature extractor of a model.

    Args:
        model ([`TartPreTrainedModel`]):
            Of images and audio, what was saved with it is taken first; else, and of texts, what the repository of its
            backbone holds.

    Raises:
        ValueError: When there is none.
    """
    loader, argument = LOADERS[model.config.modality]
    base, revision = model.config.base_model_name_or_path, model.config.base_model_revision
    name, hub = model.name_or_path, model.hub_arguments
    if model.config.modality != "text" and name:
        with contextlib.suppress(OSError, ValueError):
            return loader.from_pretrained(name, revision=getattr(model.config, "_commit_hash", None), **hub)
    if base is None:
        raise ValueError(f"The model names no backbone to take the {argument} from; pass {argument}=...")
    try:
        source, source_revision = locate(base, revision)
        with contextlib.suppress(OSError, ValueError):
            if (whole := base_of_adapter(source, revision=source_revision, **hub)) is not None:
                with contextlib.suppress(OSError, ValueError):
                    return loader.from_pretrained(source, revision=source_revision, **hub)
                source, source_revision = whole
        folder = model.config.base_model_subfolder
        if folder is not None:
            with contextlib.suppress(OSError, ValueError):  # many repositories have it beside that folder
                return loader.from_pretrained(source, revision=source_revision, subfolder=folder, **hub)
        return loader.from_pretrained(source, revision=source_revision, **hub)
    except (OSError, ValueError) as err:
        raise ValueError(
            f'No {argument} can be loaded from the backbone "{base}"; pass {argument}=... ({err})'
        ) from err


__all__ = ["LOADERS", "load_processor"]
