"""`transformers-tart demo`: three small tasks from a few labeled texts each, offline, beside the usual ways."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.commands.common import (
    add_model_options,
    add_subparser,
    load_config,
    load_pipeline,
    loading_options,
)
from transformers_tart.configuration_tart import TartBaseConfig
from transformers_tart.embeddings import encode_texts
from transformers_tart.loading.auto import load_auto, load_auto_model
from transformers_tart.pipeline_tart import TartClassificationPipeline
from transformers_tart.support import SupportSet


logger = logging.get_logger(__name__)

TEXTS = Path(__file__).with_name("demo_texts")
TASKS = ("spam", "topic", "sentiment")
SHOWN, WIDTH = 4, 74


@dataclass(frozen=True)
class DemoTask:
    """A task of the demo: labeled examples, and new texts with their true labels."""

    name: str
    examples: list[dict[str, str]]
    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class DemoResult:
    """Shares of the new texts that each way labels rightly; `None` where it cannot be gone."""

    tart: float
    probe: float
    prompting: float | None
    prompted_examples: int


def load_demo_task(name: str) -> DemoTask:
    """Read one of the tasks "spam", "topic" and "sentiment", whose texts were written for this package."""
    rows = json.loads((TEXTS / f"{name}.json").read_text(encoding="utf-8"))
    examples = [{"text": row["text"], "label": row["label"]} for row in rows if row["split"] == "examples"]
    queries = [row for row in rows if row["split"] == "queries"]
    return DemoTask(name, examples, [row["text"] for row in queries], [row["label"] for row in queries])


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = add_subparser(
        subparsers,
        "demo",
        "Classify new texts of three tasks from a few labeled ones each, offline, with what the package contains.",
        "transformers-tart demo --model EleutherAI/pythia-160m",
    )
    add_model_options(parser, required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Classify the texts of each task and print a short result."""
    if args.model is None and args.revision is not None:
        raise ValueError("--revision is that of a model; name one with --model.")
    begin = time.perf_counter()
    args.model = args.model or "mini"
    classify, language_model = load(args)
    size = sum(p.numel() for p in classify.model.backbone.parameters())
    print(f"{args.model}: {size / 1e6:.1f} million parameters, frozen; nothing is trained on these tasks\n")
    tasks, results = [load_demo_task(name) for name in TASKS], []
    for task in tasks:
        support = classify.model.encode_support(task.examples, classify.tokenizer)
        answers = classify(task.texts, examples=support)
        show(task, answers)
        results.append(measure(task, support, answers, classify, language_model))
    show_table(tasks, results)
    print(f"\n{time.perf_counter() - begin:.0f} seconds")


def load(args: argparse.Namespace) -> tuple[TartClassificationPipeline, PreTrainedModel | None]:
    """The pipeline, and its backbone with a vocabulary head where it can be prompted."""
    from transformers_tart.evaluation.prompting import can_be_prompted

    config = load_config(args)
    if isinstance(config, TartBaseConfig) or not can_be_prompted(config):
        return load_pipeline(args, config=config), None
    reference = BackboneReference.of(args.model, args.revision)
    source, hub = reference.path, {**reference.place, "token": args.token}
    language_model = load_auto_model(AutoModelForCausalLM, source, **hub, **loading_options(args))
    tokenizer = load_auto(AutoTokenizer, source, **hub)
    classify = TartClassificationPipeline(model=language_model, tokenizer=tokenizer, device=args.device)
    if not hasattr(language_model, "hf_device_map"):
        language_model.to(classify.device)
    return classify, language_model


def measure(
    task: DemoTask,
    support: SupportSet,
    answers: Sequence[dict[str, Any]],
    classify: TartClassificationPipeline,
    language_model: PreTrainedModel | None,
) -> DemoResult:
    """The accuracy of each way on the same model and examples."""
    from transformers_tart.evaluation.methods.baselines import logistic_regression
    from transformers_tart.evaluation.metrics import accuracy
    from transformers_tart.evaluation.prompting import prompt_log_probs

    config, names = classify.model.config, support.label_names
    truth = torch.tensor([names.index(label) for label in task.labels])
    fields = ("pooling", "normalize", "layers", "max_length")
    embedding = {field: getattr(config, field) for field in fields}
    query = encode_texts(classify.model.backbone, classify.tokenizer, task.texts, **embedding)
    scaling = classify.model.prepare_support(support).scaling
    known, new = (scaling.transform(rows.to(scaling.mean.device)) for rows in (support.embeddings, query))
    probe = accuracy(logistic_regression(known, support.labels, new, len(names)), truth)
    prompting, examples = None, 0
    if language_model is not None:
        texts, labels = [row["text"] for row in task.examples], support.labels.tolist()
        try:
            found = prompt_log_probs(language_model, classify.tokenizer, texts, labels, task.texts, names)
            prompting, examples = accuracy(found.log_probs, truth), found.examples
        except ValueError as err:
            logger.warning(f"The model cannot be prompted: {err}")
    right = [answer["label"] == label for answer, label in zip(answers, task.labels, strict=True)]
    return DemoResult(sum(right) / len(right), probe, prompting, examples)


def show(task: DemoTask, answers: Sequence[dict[str, Any]]) -> None:
    """Print the first answers of a task."""
    print(f"{task.name}, from {len(task.examples)} examples:")
    for text, label, answer in list(zip(task.texts, task.labels, answers, strict=True))[:SHOWN]:
        cut = text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
        wrong = "" if answer["label"] == label else f"  <- {label}"
        print(f"  {answer['label']:9} {answer['score']:4.0%}  {cut}{wrong}")
    print()


def show_table(tasks: Sequence[DemoTask], results: Sequence[DemoResult]) -> None:
    """Print the accuracies of all tasks."""
    columns = ("TART", "linear probe", "prompting", "guessing")
    print(f"{'accuracy on new texts':32}" + "".join(f"{column:>14}" for column in columns))
    for task, result in zip(tasks, results, strict=True):
        classes = len(set(task.labels))
        cells = (result.tart, result.probe, result.prompting, 1 / classes)
        written = ["-" if cell is None else f"{cell:.0%}" for cell in cells]
        row = f"{task.name} ({classes} labels, {len(task.texts)} texts)"
        print(f"{row:32}" + "".join(f"{cell:>14}" for cell in written))
    fitting = [(r.prompted_examples, len(t.examples)) for r, t in zip(results, tasks, strict=True)]
    if any(0 < shown < given for shown, given in fitting):
        print("\na prompt has room for " + ", ".join(f"{shown} of {given}" for shown, given in fitting) + " examples")


__all__ = ["DemoTask", "add_parser", "load_demo_task", "run"]
