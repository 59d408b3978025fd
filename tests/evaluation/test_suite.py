"""The suite for `evaluate`: against its evaluator, its support sets, and what it refuses."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from evaluate.evaluation_suite import SubTask
from helpers.builders import make_examples, make_pipeline, make_texts

from transformers_tart import TartClassificationPipeline
from transformers_tart.evaluation.evaluator import TartEvaluator
from transformers_tart.evaluation.suite import TartSubTask, TartSuite, label_toxic


NAMES = ["a", "b", "c"]
TEXTS = make_texts(20, seed=5)
LABELS = [i * 7 % 5 % 3 for i in range(20)]
SPEED = {"total_time_in_seconds", "samples_per_second", "latency_in_seconds"}
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})


@pytest.fixture(scope="module")
def classify() -> TartClassificationPipeline:
    """A fitted pipeline of three classes; tests leave its support set as it is."""
    return make_pipeline(examples=make_examples(24, ("a", "b", "c")))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Labeled texts, the labels as numbers of named classes."""
    return Dataset.from_dict({"text": TEXTS, "label": LABELS}, FEATURES)


def test__suite__tasks_with_support_sets__as_the_evaluator_and_as_often_as_wanted(
    classify: TartClassificationPipeline, data: Dataset
) -> None:
    options: dict[str, Any] = {"input_column": "words", "label_column": "kind", "metric": "tart"}
    pool = Dataset.from_list(make_examples(30, ("x", "x", "y"), seed=3)).rename_columns(
        {"text": "words", "label": "kind"}
    )
    queries = Dataset.from_dict({"words": TEXTS, "kind": ["xy"[label % 2] for label in LABELS]})
    drawn = TartSubTask(data=queries, support=pool, k=8, seed=1, args_for_task=options, name="drawn")
    stored = SubTask("tart-classification", data=data)
    suite = TartSuite([drawn, stored])
    first, second = suite.run(classify)
    assert (first["task_name"], second["task_name"]) == ("drawn", "task 1")
    assert second["accuracy"] == TartEvaluator().compute(classify, data)["accuracy"]
    assert first["data_preprocessor"] is None
    again = suite.run(classify)[0]
    assert {k: v for k, v in again.items() if k not in SPEED} == {k: v for k, v in first.items() if k not in SPEED}
    assert set(options) == {"input_column", "label_column", "metric"}


def test__suite__drawn_support_set__the_classes_in_turn(
    classify: TartClassificationPipeline, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Dataset] = []
    monkeypatch.setattr(TartEvaluator, "compute", lambda self, pipe, data, examples: given.append(examples) or {})
    TartSuite([TartSubTask(data=data, support=data, k=k, seed=seed) for k, seed in ((6, 0), (9, 0), (9, 1))]).run(
        classify
    )
    small, large, other = (examples.to_list() for examples in given)
    assert sorted(row["label"] for row in small) == [0, 0, 1, 1, 2, 2]
    assert large[:6] == small
    assert other != large
    assert given[0].features["label"].names == NAMES


def test__suite__folder_and_preprocessor__read_by_splits(
    classify: TartClassificationPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "comments"
    folder.mkdir()
    for split, count in (("train", 12), ("test", 8)):
        rows = {"text": make_texts(count, seed=count), "toxicity": [i % 3 / 2 for i in range(count)]}
        Dataset.from_dict(rows).to_parquet(folder / f"{split}.parquet")
    task = TartSubTask(data=str(folder), split="test", support="train", k=4, data_preprocessor=label_toxic)
    (result,) = TartSuite([task]).run(classify)
    assert 0 <= result["accuracy"] <= 1
    assert result["task_name"] == str(folder)
    assert "label_toxic" in result["data_preprocessor"]


def test__suite__wrong_tasks__refused(classify: TartClassificationPipeline, data: Dataset) -> None:
    with pytest.raises(ValueError, match=r"tasks of the types \['text-classification'\]"):
        TartSuite([SubTask("text-classification", data=data)])
    with pytest.raises(ValueError, match="give a datasets.Dataset"):
        TartSubTask(data=data, support="train")
    with pytest.raises(ValueError, match="at least 2 examples"):
        TartSubTask(data=data, support=data, k=1)
    with pytest.raises(ValueError, match="k is 64, but there are 20 rows"):
        TartSuite([TartSubTask(data=data, support=data)]).run(classify)
    with pytest.raises(ValueError, match="No evaluation tasks"):
        TartSuite([]).run(classify)
    with pytest.raises(NotImplementedError, match="runs no code of others"):
        TartSuite.load("evaluate/evaluation-suite-ci")


def test__suite__of_the_paper__seven_data_sets_of_the_hub(classify: TartClassificationPipeline) -> None:
    suite = TartSuite.paper(k=16, seed=4)
    assert [task.data for task in suite.suite] == [
        "stanfordnlp/sst2",
        "cornell-movie-review-data/rotten_tomatoes",
        "ucirvine/sms_spam",
        "stanfordnlp/imdb",
        "google/civil_comments",
        "fancyzhx/ag_news",
        "fancyzhx/dbpedia_14",
    ]
    assert {(task.k, task.seed) for task in suite.suite} == {(16, 4)}
    assert all(task.support != task.split for task in suite.suite)
    assert [label_toxic({"toxicity": share})["label"] for share in (0.49, 0.5)] == ["civil", "toxic"]
    with pytest.raises(OSError, match='"stanfordnlp/sst2" cannot be loaded'):
        suite.run(classify)
