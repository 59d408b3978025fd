"""Requirements of an exported task."""

from typing import Any

from transformers_tart.backbones.forward import switch_length
from transformers_tart.checks.templates import template_fields
from transformers_tart.modeling_base import TartPreTrainedModel


ALLOWED = "Tasks of texts or images, with the protocol stream and hints by name, can be exported; fit one of these"


def check_exportable(model: TartPreTrainedModel, processor: Any) -> None:
    """Raise a ValueError with the reason unless a task can be exported."""
    if model.support is None:
        raise ValueError(
            "The task has no support set, which an exported one is fitted to: give examples=... to the pipeline, or "
            "call set_examples."
        )
    if reason := _obstacle(model, processor):
        raise ValueError(f"The task cannot be exported: {reason}. {ALLOWED}.")


def _obstacle(model: TartPreTrainedModel, processor: Any) -> str | None:
    options, modality = model.config.embedding_options, model.config.modality
    hints = None if model.support is None else model.support.hints
    templates = [view.template for view in options.views]
    if modality.is_padded:
        return f"its inputs are {modality}, whose padding is found by trial"
    if options.has_prompt:
        return f'with the protocol "{options.protocol}" texts are read after a prompt of the examples'
    if hints is not None and hints.given:
        return f"the hints {list(hints.given)} are of the user and are not functions of the embeddings"
    if getattr(model.backbone, "hf_quantizer", None) is not None:
        return "the weights of the backbone are quantized"
    if modality.is_tokenized and switch_length(model.backbone) is not None:
        return "the backbone rotates positions differently for long texts"
    if any("text_pair" in template_fields(template) for template in templates if template is not None):
        return "a template asks for pairs of texts"
    if any(templates) and not all(templates):
        return "some views have templates and others do not, so that texts would be tokenized twice"
    if modality.is_tokenized and not getattr(processor, "is_fast", False):
        return f"the tokenizer {type(processor).__name__} has no tokenizer.json"
    return None
