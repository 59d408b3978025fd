"""The method `tart` is the composed model: its answers are those of the pipeline on the same support set."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset
from helpers.builders import build_reasoner, compose, make_examples, make_texts, save_backbone, score_all
from transformers import pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification
from transformers_tart.cli import main
from transformers_tart.evaluation.methods.base import Support, TaskContext
from transformers_tart.evaluation.methods.baselines import logistic_regression
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.registry import METHODS
from transformers_tart.evaluation.metric import TartMetric
from transformers_tart.evaluation.records import read_records
from transformers_tart.evaluation.tasks import Task, load_task
from transformers_tart.projection import LayerScaling


K = 12
NAMES = ("a", "b", "c")


def save_task(folder: Path, reasoner: str = "kernel", **options: object) -> str:
    """A TART folder with a support set of other examples."""
    save_backbone(folder / "backbone")
    backbone = compose("llama", reasoner, **options)
    model = type(backbone).from_backbone(folder / "backbone", backbone.reasoner, **options)
    classify = TartClassificationPipeline(model=model, examples=make_examples(8, ("x", "y"), seed=7))
    classify.save_pretrained(folder / "task")
    return str(folder / "task")


def save_sentence_encoder(folder: Path) -> str:
    """A repository of sentence-transformers: the first token, divided by its norm, of at most five tokens."""
    save_backbone(folder, "bert")
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    rows = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5, "do_lower_case": false}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}'
    )
    return str(folder)


MODELS: dict[str, Callable[[Path], str]] = {
    "backbone": lambda folder: save_backbone(folder, "gpt2"),
    "task": lambda folder: save_task(folder, pooling="last", normalize=True, layers=1, max_length=4),
    "task_of_a_gpt2_reasoner": lambda folder: save_task(folder, "gpt2"),
    "task_of_a_prompt": lambda folder: save_task(folder, protocol="vanilla", template="{text} is {label}\n"),
    "sentence_encoder": save_sentence_encoder,
}


@pytest.fixture(scope="module")
def task() -> Task:
    labels = [i % 3 for i in range(30)]
    return Task("made", NAMES, make_texts(30, 1, 9), labels, make_texts(15, 2, 9), labels[:15])


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return MODELS[request.param](tmp_path_factory.mktemp("model") / request.param)


def build_pipeline(folder: str, task: Task, support: Support) -> TartClassificationPipeline:
    examples = [{"text": task.train_texts[i], "label": NAMES[task.train_labels[i]]} for i in support.indices]
    return pipeline("tart-classification", model=folder, examples=examples)


@pytest.mark.slow
def test__tart__any_model_of_the_pipeline__answers_of_the_pipeline(folder: str, task: Task) -> None:
    context, support = TaskContext(task, Models(folder)), Support.draw(task, K, seed=0)
    expected = score_all(build_pipeline(folder, task, support), task.test_texts)
    found = METHODS["tart"](context, support)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-3)  # the pipeline rounds to float16
    METHODS["logistic_regression"](context, support)
    assert torch.equal(METHODS["tart"](context, support), found)  # from the embeddings that are kept


def test__tart__names_with_a_meaning__hints_of_the_model(task: Task, tmp_path: Path) -> None:
    names = ("w3 w4", "w9 w30", "w50 w60 w70")
    named, folder = replace(task, label_names=names), save_backbone(tmp_path, "gpt2")
    context, support = TaskContext(named, Models(folder, dtype="float32")), Support.draw(named, K, seed=0)
    model, tokenizer = context.model, context.models.tokenizer
    tests = [{"text": text, "label": names[i % 3]} for i, text in enumerate(task.test_texts)]
    queries = model.encode_support(tests, tokenizer, hints=None).embeddings
    examples = {
        "text": [task.train_texts[i] for i in support.indices],
        "label": [names[task.train_labels[i]] for i in support.indices],
    }
    dataset = Dataset.from_dict(examples).cast_column("label", ClassLabel(names=list(names)))
    given: dict[str, dict] = {
        "tart": {"examples": dataset},
        "tart_without_hints": {"examples": dataset, "hints": None},
        "zero_shot": {"examples": None, "candidate_labels": names},
    }
    found = {}
    for name, arguments in given.items():
        prepared = model.prepare_examples(arguments.pop("examples"), tokenizer, **arguments)
        found[name] = METHODS[name](context, support)
        expected = model.answer(queries, prepared).softmax(-1).detach()
        torch.testing.assert_close(
            found[name].float(), expected, rtol=0, atol=2e-3, msg=name
        )  # prepared ones are in float16
    assert len({tuple(each.flatten().tolist()) for each in found.values()}) == 3
    assert torch.equal(METHODS["tart"](context, Support((), 0)), found["zero_shot"])


def test__zero_shot__names_without_a_meaning__refused(task: Task, tmp_path: Path) -> None:
    context, support = TaskContext(task, Models(save_backbone(tmp_path, "gpt2"))), Support.draw(task, K, seed=0)
    assert torch.equal(METHODS["tart"](context, support), METHODS["tart_without_hints"](context, support))
    with pytest.raises(ValueError, match="those of made give it no hint"):
        METHODS["zero_shot"](context, support)


def test__probe__any_model_of_the_pipeline__reads_its_embeddings(folder: str, task: Task) -> None:
    context, support = TaskContext(task, Models(folder)), Support.draw(task, K, seed=0)
    classify = build_pipeline(folder, task, support)
    stored, embedder = classify.model.support, classify.model.embedder()
    rows = embedder.tokenize(classify.tokenizer, task.test_texts)
    queries = embedder.embed_rows(rows, embedder.read_support(stored.prompt, stored.phrasing), pad_token_id=0)
    scaling = LayerScaling.fit(stored.embeddings)
    given = (scaling.transform(stored.embeddings), stored.labels, scaling.transform(queries))
    found = METHODS["logistic_regression"](context, support)
    torch.testing.assert_close(found, logistic_regression(*given, 3), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("protocol", ["vanilla", "loo"])
def test__tart__other_protocol__model_of_that_protocol(task: Task, tmp_path: Path, protocol: str) -> None:
    folder = save_backbone(tmp_path)
    context, support = TaskContext(task, Models(folder, max_length=5)), Support.draw(task, K, seed=0)
    options = {"protocol": protocol, "max_length": 5}
    model = type(context.model).from_backbone(folder, **options)
    expected = score_all(build_pipeline(model, task, support), task.test_texts)
    found = METHODS[f"tart_{protocol}"](context, support)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-5)
    assert context.model.config.protocol == "stream"


def test__probe__one_view__reads_it_alone(task: Task, tmp_path: Path) -> None:
    folder, support = save_backbone(tmp_path, "gpt2"), Support.draw(task, K, seed=0)
    model = TartForSequenceClassification.from_backbone(folder, views="one_word")
    examples = [{"text": task.train_texts[i], "label": NAMES[task.train_labels[i]]} for i in support.indices]
    classify = TartClassificationPipeline(model=model, examples=examples)
    tests = [{"text": text, "label": "a"} for text in task.test_texts[:-1]]
    tests.append({"text": task.test_texts[-1], "label": "b"})
    stored, queries = classify.model.support, model.encode_support(tests, classify.tokenizer).embeddings
    scaling = LayerScaling.fit(stored.embeddings)
    given = (scaling.transform(stored.embeddings), stored.labels, scaling.transform(queries))
    found = METHODS["logistic_regression"](TaskContext(task, Models(folder, views="one_word")), support)
    torch.testing.assert_close(found, logistic_regression(*given, 3), rtol=1e-3, atol=1e-4)


def test__probe__several_views__side_by_side(task: Task, tmp_path: Path) -> None:
    folder, support = save_backbone(tmp_path, "gpt2"), Support.draw(task, K, seed=0)
    both, *single = (
        TaskContext(task, Models(folder, views=views)).embeddings(support)
        for views in (["one_word", "mean"], "one_word", "mean")
    )
    for joint, one, other in zip(both, *single, strict=True):
        torch.testing.assert_close(joint, torch.cat([one, other], dim=1), rtol=1e-4, atol=1e-4)


def test__tart__other_protocol_than_the_views__those_without_a_template_are_kept(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path)
    for views, expected in ((None, ["mean_all"]), ("one_word", ["mean_all"]), (["mean", "last"], ["mean", "last"])):
        model = Models(folder, views=views).model("text", "loo")
        assert [view.name for view in model.config.views] == expected


def test__models__views_of_a_task__kept_or_refused(tmp_path: Path) -> None:
    folder = save_task(tmp_path, views="one_word")
    assert Models(folder, views="one_word").model("text").config.views[0].name == "one_word"
    with pytest.raises(ValueError, match="was embedded with other values of"):
        Models(folder, views="plain").model("text")


@pytest.mark.slow
def test__tart__reasoner_of_a_backbone__read_with_its_projection(task: Task, tmp_path: Path) -> None:
    build_reasoner("gpt2").save_pretrained(tmp_path / "reasoner")
    folder, support = save_backbone(tmp_path / "llama"), Support.draw(task, K, seed=0)
    model = TaskContext(task, Models(folder)).model
    model = type(model).from_backbone(folder, tmp_path / "reasoner")
    assert [view.layers for view in model.config.views] == [-1]
    expected = score_all(build_pipeline(model, task, support), task.test_texts)
    found = METHODS["tart"](TaskContext(task, Models(folder, reasoner=str(tmp_path / "reasoner"))), support)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)  # of a support set in float16


def test__models__prompt__before_each_text(task: Task, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone")
    found = [Models(folder, prompt=prompt).model("text").config.prompt for prompt in (None, "w1 ")]
    assert found == [None, "w1 "]
    support = Support.draw(task, K, seed=0)
    with_prompt = TaskContext(task, Models(folder, views="plain", prompt="w1 ")).embeddings(support)
    written = replace(task, train_texts=[f"w1 {text}" for text in task.train_texts])
    torch.testing.assert_close(
        with_prompt[0], TaskContext(written, Models(folder, views="plain")).embeddings(support)[0]
    )


def test__models__task_that_does_not_fit__refused(task: Task, tmp_path: Path) -> None:
    folder = save_task(tmp_path)
    with pytest.raises(ValueError, match="task is a TART repository with its own reasoner"):
        Models(folder, reasoner="kernel").model("text")
    with pytest.raises(ValueError, match="task classifies text inputs, and the task has images"):
        Models(folder).model("image")
    assert Models(folder).model("text").support is None


@pytest.mark.slow
def test__evaluate_command__task_folder__metrics_of_its_pipeline(tmp_path: Path) -> None:
    texts, labels = make_texts(40, 1, 9), [NAMES[i % 3] for i in range(40)]
    rows = [
        {"text": text, "label": label, "split": ("train", "test")[i >= 25]}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = save_task(tmp_path, pooling="last")
    command = ["evaluate", "--model", folder, "--task", str(tmp_path / "made.jsonl"), "--methods", "tart"]
    command += ["--k", str(K), "--seeds", "1", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    (record,) = read_records(tmp_path / "out")
    task = load_task(str(tmp_path / "made.jsonl"))
    scores = score_all(build_pipeline(folder, task, Support.draw(task, K, record.seed)), task.test_texts)
    expected = TartMetric().compute(prediction_scores=scores, references=task.test_labels)
    assert record.metrics == pytest.approx(expected, abs=1e-4)
