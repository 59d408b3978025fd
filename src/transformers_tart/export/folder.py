"""Folders of exported tasks: a program, the files of the tokenizer or processor, a config and a README."""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jinja2 import StrictUndefined, Template
from tokenizers import Tokenizer
from torch import Tensor
from torch.export import Dim, ExportedProgram

from transformers_tart import __version__
from transformers_tart.backbones.forward import resolve_max_length, switch_length
from transformers_tart.checks.arguments import as_source, shorten
from transformers_tart.checks.packages import import_package
from transformers_tart.checks.templates import template_fields
from transformers_tart.export.graph import FittedTask, ImageTask, PassageTask, TextTask
from transformers_tart.files import staged
from transformers_tart.inputs.labels import restore_labels
from transformers_tart.inputs.tokenization import neutral_token
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.pipeline_tart import TartClassificationPipeline


README = Path(__file__).with_name("readme_template.md")
FORMATS = {"onnx": "model.onnx", "torch": "model.pt2"}
OWNED = ("model.onnx*", "model.pt2", "tokenizer*.json", "preprocessor_config.json", "README.md")
MOST_BYTES = 2**31 - 2**24  # of a file of ONNX; larger weights are in a file beside it
BATCH, LENGTH = 3, 5  # of the texts with which a task is traced
ALLOWED = "Tasks of texts or images, with the protocol stream and hints by name, can be exported; fit one of these"


def export_task(classify: TartClassificationPipeline, save_directory: str | os.PathLike, format: str = "onnx") -> Path:
    r"""
    Export a fitted task to a folder, which is used without this package.

    The program computes in float32 on the CPU, whatever the dtype and device of the backbone are, and takes batches of
    any size and length. Its outputs are `logits` and `probabilities`, of shape `(batch, num_labels)`. `README.md` in
    the folder shows how to use it.

    ```python
    >>> from transformers_tart.export import export_task

    >>> classify = pipeline("tart-classification", model="HuggingFaceTB/SmolLM2-135M", examples=examples)
    >>> export_task(classify, "exported")  # `exported/model.onnx`, its tokenizer, config and README
    ```

    Args:
        classify ([`TartClassificationPipeline`]):
            A pipeline of texts or images with a support set.
        save_directory (`str` or `Path`):
            The folder, made when it does not exist.
        format (`str`, *optional*, defaults to `"onnx"`):
            `"onnx"` for ONNX, which takes the packages of the extra `onnx`, or `"torch"` for `torch.export`.

    Returns:
        `Path`: the file of the program.

    Raises:
        ValueError: When the task has no support set, or is one that cannot be exported: with a prompt of the examples,
            hints of the user, audio, pairs of texts, or views with templates beside others without.
        MissingPackageError: When the packages of the extra are not installed.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {shorten(format)}; it must be one of {list(FORMATS)}.")
    if format == "onnx":
        for name in ("onnx", "onnxscript"):
            import_package(name, "onnx", "Exporting to ONNX")
    folder = Path(as_source(save_directory, "save_directory"))
    _check_folder(folder)
    processor = getattr(classify, classify.model.config.modality.processor_argument)
    check_exportable(classify.model, processor)
    model = _in_float32(classify.model)
    prepared = model.prepare_support()
    kind = TextTask if model.config.modality.is_tokenized else ImageTask
    task = (kind if prepared.reading is None else PassageTask)(model, prepared).eval()
    with staged(folder, OWNED) as stage:
        _save(trace(task, _example(task, processor)), stage / FORMATS[format])
        config = {"format": format, **_describe(task), **_save_processor(task, processor, stage)}
        (stage / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        form = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
        page = Template(README.read_text(encoding="utf-8"), **form)  # type: ignore[arg-type]
        facts = {"config": config, "file": FORMATS[format], "is_text": classify.model.config.modality.is_tokenized}
        (stage / "README.md").write_text(page.render(facts) + "\n", encoding="utf-8")
    return folder / FORMATS[format]


def _check_folder(folder: Path) -> None:
    """Raise a ValueError for a folder with a task or another model, whose config would be lost."""
    config = folder / "config.json"
    if config.is_file() and '"model_type"' in config.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"{folder} holds a model, whose config.json would be lost; export to another folder.")


def trace(task: FittedTask, example: Mapping[str, Tensor]) -> ExportedProgram:
    """Trace a task with inputs whose batch, and of texts the length, may be of any size."""
    sizes = {name: dict.fromkeys(range(2 if x.dim() == 2 else 1), Dim.DYNAMIC) for name, x in example.items()}
    with torch.no_grad():
        return torch.export.export(task, (), dict(example), dynamic_shapes=sizes)


def _in_float32(model: TartPreTrainedModel) -> TartPreTrainedModel:
    """Return the model, or a copy of it in float32 on the CPU."""
    if (model.backbone.dtype, model.backbone.device.type, model.reasoner.device.type) == (torch.float32, "cpu", "cpu"):
        return model
    return copy.deepcopy(model).float().cpu()


def _example(task: FittedTask, processor: Any) -> dict[str, Tensor]:
    """Return inputs with which a task is traced; their values do not matter."""
    modality = task.model.config.modality
    if modality.is_tokenized:
        ids = torch.full((BATCH, LENGTH), neutral_token(processor))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert modality.read is not None
    assert modality.blank is not None
    features = modality.read(processor, modality.blank(), "The blank input")
    return {name: x.expand(BATCH, *x.shape[1:]).contiguous() for name, x in features.items()}


def _save(program: ExportedProgram, path: Path) -> None:
    if path.name == FORMATS["torch"]:
        torch.export.save(program, path)
        return
    size = sum(x.numel() * x.element_size() for x in (*program.state_dict.values(), *program.constants.values()))
    names = ["logits", "probabilities"]
    # runtimes fold constants as they load a program; here that would take minutes for large backbones
    found = torch.onnx.export(program, output_names=names, dynamo=True, verbose=False, optimize=False)
    assert found is not None
    found.save(path, external_data=size > MOST_BYTES)


def _describe(task: FittedTask) -> dict[str, Any]:
    """Return facts of a task, for JSON."""
    config, support = task.model.config, task.prepared.support
    return {
        "labels": restore_labels(task.model.names_for(support), support.label_kind),
        "multi_label": support.is_multi_label,
        "backbone": config.base_model_name_or_path,
        "views": [view.as_dict() for view in task.views],
        "transformers_tart": __version__,
    }


def _save_processor(task: FittedTask, processor: Any, folder: Path) -> dict[str, Any]:
    """Save the tokenizer or processor; return how it is used, for JSON."""
    if not task.model.config.modality.is_tokenized:
        processor.save_pretrained(folder)
        return {}
    options, is_whole = task.model.config.embedding_options, isinstance(task, TextTask)
    limit = task.room if isinstance(task, PassageTask) else None
    if is_whole:
        limit = resolve_max_length(task.model.backbone, processor, options.max_length)
    tokenizer = Tokenizer.from_str(processor.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if limit is not None:
        tokenizer.enable_truncation(limit, direction=processor.truncation_side)
    tokenizer.save(str(folder / "tokenizer.json"))
    return {
        "prompt": options.prompt or "",
        "lower_case": options.lower_case,
        "add_special_tokens": is_whole,
        "max_length": limit,
        "neutral_token_id": neutral_token(processor),
    }


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
