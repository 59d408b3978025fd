"""What prepares inputs for a backbone: its tokenizer, image processor or feature extractor."""

import contextlib
from typing import Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

from transformers_tart.backbones.adapters import base_of_adapter
from transformers_tart.backbones.reference import locate
from transformers_tart.loading.auto import find_file, load_auto
from transformers_tart.modeling_base import TartPreTrainedModel


# For each modality the class that loads, and the argument of `pipeline` that takes what it loads.
LOADERS: dict[str, tuple[Any, str]] = {
    "text": (AutoTokenizer, "tokenizer"),
    "image": (AutoImageProcessor, "image_processor"),
    "audio": (AutoFeatureExtractor, "feature_extractor"),
}
# The files that show that a repository has one.
MEDIA_FILES = ("preprocessor_config.json", "processor_config.json")
FILES = {"text": ("tokenizer_config.json", "tokenizer.json"), "image": MEDIA_FILES, "audio": MEDIA_FILES}


def load_processor(model: TartPreTrainedModel) -> Any:
    r"""
    Load the tokenizer, image processor or feature extractor of a model.

    Args:
        model ([`TartPreTrainedModel`]):
            What was saved with it is taken first, else what the repository of its backbone holds.

    Raises:
        CorruptFileError: When what was saved with the model is damaged.
        ValueError: When there is none.
    """
    loader, argument = LOADERS[model.config.modality]
    base, revision = model.config.base_model_name_or_path, model.config.base_model_revision
    hub, place = model.origin.hub, dict(model.origin.task)
    name = place.pop("name", None)
    if name and any(find_file(name, file, **hub, **place) for file in FILES[model.config.modality]):
        return load_auto(loader, name, **hub, **place)
    if base is None:
        raise ValueError(f"The model names no backbone to take the {argument} from; pass {argument}=...")
    try:
        source, source_revision = locate(base, revision)
        with contextlib.suppress(OSError, ValueError):
            plain = {key: value for key, value in hub.items() if key != "trust_remote_code"}
            if (whole := base_of_adapter(source, revision=source_revision, **plain)) is not None:
                with contextlib.suppress(OSError, ValueError):
                    return load_auto(loader, source, revision=source_revision, **hub)
                source, source_revision = whole
        folder = model.config.base_model_subfolder
        if folder is not None:
            with contextlib.suppress(OSError, ValueError):  # many repositories have it beside that folder
                return load_auto(loader, source, revision=source_revision, subfolder=folder, **hub)
        return load_auto(loader, source, revision=source_revision, **hub)
    except (OSError, ValueError) as err:
        raise ValueError(
            f'No {argument} can be loaded from the backbone "{base}"; pass {argument}=... ({err})'
        ) from err


__all__ = ["LOADERS", "load_processor"]
