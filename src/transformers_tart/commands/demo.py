"""`transformers-tart demo`: three small tasks with a few labeled texts each, offline, and other methods on them."""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.dtype import with_dtype
from transformers_tart.commands import common
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings.views import choose_task_views
from transformers_tart.inputs.examples import Examples
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.modeling_tart import compose_any
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.projection import LayerScaling


logger = logging.get_logger(__name__)

TEXTS = Path(__file__).with_name("demo_texts")
TASKS = ("spam", "topic", "sentiment")
SHOWN, WIDTH = 4, 74


class DemoTask(NamedTuple):
    """Labeled examples, and new texts with their true labels."""

    name: str
    examples: list[dict[str, str]]
    texts: list[str]
    labels: list[str]


def load_demo_task(name: str) -> DemoTask:
    """Read the task "spam", "topic" or "sentiment", whose texts were written for this package."""
    rows = json.loads((TEXTS / f"{name}.json").read_text(encoding="utf-8"))
    examples = [{"text": row["text"], "label": row["label"]} for row in rows if row["split"] == "examples"]
    queries = [row for row in rows if row["split"] == "queries"]
    return DemoTask(name, examples, [row["text"] for row in queries], [row["label"] for row in queries])


SUMMARY = "Classify new texts of three tasks from a few labeled ones each; by default offline, with the model mini."
EXAMPLE = "--model EleutherAI/pythia-160m"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    common.add_shared(parser, *common.LOADING, required=False)


def run(args: argparse.Namespace) -> None:
    """Classify the texts of each task, and print predictions and accuracies."""
    if args.model is None and args.revision is not None:
        raise ValueError("--revision needs a model; name one with --model.")
    begin = time.perf_counter()
    args.model = args.model or "mini"
    classify, language_model = _load(args)
    size = sum(p.numel() for p in classify.model.backbone.parameters())
    dtype = str(classify.model.backbone.dtype).removeprefix("torch.")
    print(f"{args.model}: {size / 1e6:.1f} million parameters in {dtype}, frozen; nothing is trained on these tasks\n")
    plain = _with_plain_views(classify, args.device)
    tasks, accuracies, fitting = [load_demo_task(name) for name in TASKS], [], []
    for task in tasks:
        predictions, *others = _classify_task(task, classify, plain)
        _print_predictions(task, predictions)
        probe, prompting, shown = _measure_others(task, classify, language_model)
        own = [None if found is None else _share_right(task, found) for found in (predictions, *others)]
        accuracies.append((*own, probe, prompting, 1 / len(set(task.labels))))
        fitting.append((shown, len(task.examples)))
    _print_table(tasks, accuracies)
    print()
    for who, each in (("TART and the probe", classify), ("plain views", plain)):
        print(f"views of {who}: {', '.join(str(view.name) for view in each.model.config.embedding_options.views)}")
    if any(0 < shown < given for shown, given in fitting):
        print("\na prompt has room for " + ", ".join(f"{shown} of {given}" for shown, given in fitting) + " examples")
    print(f"\n{time.perf_counter() - begin:.0f} seconds")


def _load(args: argparse.Namespace) -> tuple[TartClassificationPipeline, PreTrainedModel | None]:
    """Load the pipeline, and its backbone with a vocabulary head where it can be prompted."""
    from transformers_tart.evaluation.prompting import can_be_prompted

    config = common.load_config(args)
    if isinstance(config, TartBaseConfig) or not can_be_prompted(config):
        return common.load_pipeline(args, config), None
    name, hub = common.hub_options(args)
    loading = with_dtype(common.loading_options(args), config, args.device)
    language_model = load_auto_model(AutoModelForCausalLM, name, **hub, **loading)
    tokenizer = load_auto(AutoTokenizer, name, **hub)
    model = compose_any(language_model, **common.embedding_options(args))
    classify = TartClassificationPipeline(model=model, tokenizer=tokenizer, device=args.device)
    if not hasattr(language_model, "hf_device_map"):
        language_model.to(classify.device)
    return classify, language_model


def _with_plain_views(classify: TartClassificationPipeline, device: str | None) -> TartClassificationPipeline:
    """Return a pipeline with the same backbone and reasoner, and views without a template."""
    model, config = classify.model, copy.deepcopy(classify.model.config)
    config.views = choose_task_views("plain", config, model.traits)
    plain = type(model)(config, backbone=model.backbone, reasoner=model.reasoner).eval()
    return TartClassificationPipeline(model=plain, tokenizer=classify.tokenizer, device=device)


def _classify_task(
    task: DemoTask, classify: TartClassificationPipeline, plain: TartClassificationPipeline
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return predictions from the examples, from names alone, without names, and by the plain views."""
    support = classify.model.encode_support(task.examples, classify.tokenizer)  # without a line about weak hints
    with_examples = classify(task.texts, examples=support)
    without_names = classify(task.texts, examples=replace(support, hints=None))
    options = classify.model.config.embedding_options
    names, from_names = sorted(set(task.labels)), None
    if classify.model.reasoner.reads_hints and not options.has_prompt:
        from_names = [found[0] for found in classify(task.texts, candidate_labels=names, top_k=1)]
    return (
        with_examples,
        from_names,
        without_names,
        plain(task.texts, examples=plain.model.encode_support(task.examples, plain.tokenizer)),
    )


def _share_right(task: DemoTask, predictions: Sequence[dict[str, Any]]) -> float:
    right = [found["label"] == label for found, label in zip(predictions, task.labels, strict=True)]
    return sum(right) / len(right)


def _embed_alone(classify: TartClassificationPipeline, texts: list[str]) -> Tensor:
    """Embed each text alone, by the views of the pipeline."""
    embedder = classify.model.embedder()
    views = tuple(replace(view, template=None) if view.is_of_prompt else view for view in embedder.views)
    alone = replace(embedder, options=replace(embedder.options, protocol="stream", views=views))
    return alone.embed_examples(Examples(texts, [0] * len(texts), ()), classify.tokenizer).embeddings


def _measure_others(
    task: DemoTask, classify: TartClassificationPipeline, language_model: PreTrainedModel | None
) -> tuple[float, float | None, int]:
    """Return the accuracies of a linear probe and of prompting, and the number of examples that fit into a prompt."""
    from transformers_tart.evaluation.methods.baselines import logistic_regression
    from transformers_tart.evaluation.metrics import accuracy
    from transformers_tart.evaluation.prompting import prompt_log_probs

    names = sorted(set(task.labels))
    texts = [row["text"] for row in task.examples]
    labels = torch.tensor([names.index(row["label"]) for row in task.examples])
    truth = torch.tensor([names.index(label) for label in task.labels])
    embedded = [_embed_alone(classify, given) for given in (texts, task.texts)]
    scaling = LayerScaling.fit(embedded[0])
    known, new = (scaling.transform(rows) for rows in embedded)
    probe = accuracy(logistic_regression(known, labels, new, len(names)), truth)
    if language_model is None:
        return probe, None, 0
    try:
        found = prompt_log_probs(language_model, classify.tokenizer, texts, labels.tolist(), task.texts, names)
    except ValueError as err:
        logger.warning(f"The model cannot be prompted: {err}")
        return probe, None, 0
    return probe, accuracy(found.log_probs, truth), found.examples


def _print_predictions(task: DemoTask, predictions: Sequence[dict[str, Any]]) -> None:
    print(f"{task.name}, from {len(task.examples)} examples:")
    for text, label, found in list(zip(task.texts, task.labels, predictions, strict=True))[:SHOWN]:
        cut = text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
        wrong = "" if found["label"] == label else f"  <- {label}"
        print(f"  {found['label']:9} {found['score']:4.0%}  {cut}{wrong}")
    print()


def _print_table(tasks: Sequence[DemoTask], accuracies: Sequence[Sequence[float | None]]) -> None:
    columns = ("TART", "no examples", "no names", "plain views", "probe", "prompting", "guessing")
    print(f"{'accuracy on new texts':32}" + "".join(f"{column:>12}" for column in columns))
    for task, cells in zip(tasks, accuracies, strict=True):
        row = f"{task.name} ({len(set(task.labels))} labels, {len(task.texts)} texts)"
        print(f"{row:32}" + "".join(f"{'-' if cell is None else f'{cell:.0%}':>12}" for cell in cells))
