"""A fitted repository as an ordinary sequence classifier: each way to use it gives the same answers."""

from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset
from helpers.builders import make_examples, make_texts, save_backbone
from sklearn.metrics import accuracy_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    pipeline,
)

from transformers_tart import TartClassificationPipeline
from transformers_tart.backbones import MINI
from transformers_tart.commands.demo import load_demo_task


SUPPORT_SIZE = 24


class Task:
    """A fitted repository, its queries, and what the pipeline of this package says about them."""

    def __init__(self, folder: Path, base: str, rows: list[dict]):
        support, self.rows = rows[:SUPPORT_SIZE], rows[SUPPORT_SIZE:]
        self.folder = str(folder / "task")
        self.texts = [row["text"] for row in self.rows]
        fitted: TartClassificationPipeline = pipeline("tart-classification", model=base, examples=support)
        fitted.save_pretrained(self.folder)
        self.names = list(fitted.model.config.id2label.values())
        self.scores = self.score(fitted(self.texts, top_k=None))

    def score(self, results: list[list[dict]]) -> torch.Tensor:
        """Probabilities (n, classes), the classes in the order of the config."""
        tables = [{r["label"]: r["score"] for r in result} for result in results]
        return torch.tensor([[table[name] for name in self.names] for table in tables])

    def dataset(self) -> Dataset:
        """The queries with their true labels."""
        dataset = Dataset.from_list([{"text": row["text"], "label": str(row["label"])} for row in self.rows])
        return dataset.cast_column("label", ClassLabel(names=self.names))


@pytest.fixture(scope="module", params=["random", "real"])
def task(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Random texts on a random backbone, and real texts on the embedded one."""
    folder = tmp_path_factory.mktemp("integration")
    if request.param == "random":
        rows = make_examples(SUPPORT_SIZE + 16, ("a", "b", "c"))
        return Task(folder, save_backbone(folder / "base"), rows)
    spam = load_demo_task("spam")
    queries = [{"text": text, "label": label} for text, label in zip(spam.texts, spam.labels, strict=True)]
    return Task(folder, str(MINI), spam.examples[:SUPPORT_SIZE] + queries)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test__text_classification_pipeline__fitted_repository__same_answers(task: Task, batch_size: int) -> None:
    classify = pipeline("text-classification", model=task.folder, batch_size=batch_size)
    assert type(classify) is not TartClassificationPipeline
    torch.testing.assert_close(task.score(classify(task.texts, top_k=None)), task.scores, atol=1e-4, rtol=0)


@pytest.mark.slow
def test__trainer__evaluate_and_predict__same_answers(task: Task, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(task.folder)
    dataset = task.dataset().map(lambda row: tokenizer(row["text"], truncation=True, max_length=512), batched=True)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(task.folder),
        args=TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda p: {"accuracy": accuracy_score(p.label_ids, p.predictions.argmax(-1))},
    )
    labels = torch.tensor(dataset["label"])
    metrics = trainer.evaluate(dataset)
    assert metrics["eval_accuracy"] == pytest.approx((task.scores.argmax(-1) == labels).float().mean().item())
    loss = torch.nn.functional.nll_loss(task.scores.log(), labels)
    assert metrics["eval_loss"] == pytest.approx(loss.item(), abs=1e-3)
    prediction: EvalPrediction = trainer.predict(dataset)
    scores = torch.tensor(prediction.predictions).softmax(-1)
    torch.testing.assert_close(scores, task.scores, atol=1e-4, rtol=0)


@pytest.mark.slow
def test__dataset_map__batched__same_answers(task: Task) -> None:
    classify = pipeline("tart-classification", model=task.folder)
    mapped = task.dataset().map(
        lambda batch: {"scores": task.score(classify(batch["text"], top_k=None)).tolist()}, batched=True, batch_size=5
    )
    torch.testing.assert_close(torch.tensor(mapped["scores"]), task.scores, atol=1e-4, rtol=0)


@pytest.mark.slow
def test__dataset_of_examples__class_label__same_answers_as_its_rows(task: Task) -> None:
    classify = pipeline("tart-classification", model=task.folder)
    as_rows = [{"text": row["text"], "label": str(row["label"])} for row in task.rows]
    texts = make_texts(5)
    found, expected = (classify(texts, examples=given, top_k=None) for given in (task.dataset(), as_rows))
    torch.testing.assert_close(task.score(found), task.score(expected))


@pytest.mark.parametrize("task", ["real"], indirect=True)
def test__real_texts__real_backbone__better_than_chance(task: Task) -> None:
    labels = torch.tensor(task.dataset()["label"])
    assert (task.scores.argmax(-1) == labels).float().mean() > 0.75
