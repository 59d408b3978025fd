"""Tasks: files, folders and the registry, support sets that are nested, and no leaks."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart.evaluation.tasks import GROUPS, SEEDS, TASKS, Task, load_task
from transformers_tart.evaluation.tasks import registry as registry_module


pytestmark = pytest.mark.core


def make_task(train: list[int], test: list[int] | None = None, classes: int = 3) -> Task:
    test = [0, 1, 2] if test is None else test
    texts = [f"train {i}" for i in range(len(train))], [f"test {i}" for i in range(len(test))]
    return Task("made", tuple("abcdefgh"[:classes]), texts[0], train, texts[1], test)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return str(path)


def rows_of(count: int, split: str | None = None, start: int = 0) -> list[dict[str, Any]]:
    extra = {} if split is None else {"split": split}
    return [{"text": f"text {start + i}", "label": "ab"[i % 2], **extra} for i in range(count)]


LABELS = st.lists(st.integers(0, 2), min_size=20, max_size=60).filter(lambda labels: len(set(labels)) == 3)


@given(labels=LABELS, seed=st.sampled_from(SEEDS), sampling=st.sampled_from(["balanced", "natural"]))
def test__draw_support__larger_k__holds_the_smaller(labels: list[int], seed: int, sampling: str) -> None:
    task = make_task(labels)
    small, large = (task.draw_support(k, seed, sampling) for k in (16, 20))
    assert large[:16] == small
    assert len(set(large)) == 20
    assert large == task.draw_support(20, seed, sampling)


@given(labels=LABELS)
def test__draw_support__balanced__classes_in_turn_as_long_as_they_last(labels: list[int]) -> None:
    counts = Counter(labels[i] for i in make_task(labels).draw_support(9, 42))
    available = Counter(labels)
    for label, count in counts.items():
        assert count >= min(3, available[label])


def test__draw_support__natural__shares_as_they_are() -> None:
    task = make_task([0] * 900 + [1] * 100, classes=2, test=[0, 1])
    counts = Counter(task.train_labels[i] for i in task.draw_support(200, 42, "natural"))
    assert 5 < counts[1] < 40


@pytest.mark.parametrize(
    ("k", "sampling", "message"),
    [
        (1, "balanced", "k is 1"),
        (99, "balanced", "has 20 training texts: give k from 2"),
        (4, "odd", 'sampling is "odd"'),
    ],
)
def test__draw_support__impossible__says_why(k: int, sampling: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task([0, 1] * 10).draw_support(k, 0, sampling)


def test__draw_support__one_class_alone__says_so() -> None:
    task = make_task([0] * 5000 + [1], classes=2, test=[0, 1])
    with pytest.raises(ValueError, match="all of one class|are of one class"):
        task.draw_support(2, 42, "natural")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [([0, 0], [1], "one label"), ([0, 5], [1], "none of its 3 classes"), ([], [1], "0 texts")],
)
def test__task__that_is_none__says_why(train: list[int], test: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(train, test)


def test__with_tests__fewer__shares_of_the_classes_kept() -> None:
    task = make_task([0, 1], [0] * 60 + [1] * 30 + [2] * 10)
    fewer = task.with_tests(20, seed=3)
    assert Counter(fewer.test_labels) == {0: 12, 1: 6, 2: 2}
    assert fewer == task.with_tests(20, seed=3)
    assert fewer.test_texts != task.with_tests(20, seed=4).test_texts
    assert task.with_tests(None, 0) is task


def test__load_task__file_with_splits__both_and_no_leak(tmp_path: Path, all_logs: pytest.LogCaptureFixture) -> None:
    rows = [*rows_of(10, "train"), *rows_of(6, "test", start=8)]
    task = load_task(write(tmp_path / "mine.jsonl.gz", rows))
    assert (task.name, task.label_names) == ("mine", ("a", "b"))
    assert (len(task.train_texts), len(task.test_texts)) == (8, 6)
    assert not set(task.train_texts) & set(task.test_texts)
    assert "2 training texts of mine stand in the test split too" in all_logs.text


def test__load_task__file_without_splits__three_quarters_are_tested(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", rows_of(40))
    task = load_task(path)
    assert (len(task.train_texts), len(task.test_texts)) == (10, 30)
    assert task == load_task(path)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test__load_task__folder__train_and_test_files(ending: str, tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 50)):
        data = Dataset.from_list(rows_of(10, start=start))
        {"csv": data.to_csv, "parquet": data.to_parquet, "jsonl": data.to_json}[ending](tmp_path / f"{split}.{ending}")
    task = load_task(str(tmp_path))
    assert (len(task.train_texts), len(task.test_texts)) == (10, 10)


def test__load_task__text_pairs_and_numbers__read_as_such(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "text_pair": f"p{i}", "label": i % 11} for i in range(44)]
    task = load_task(write(tmp_path / "pairs.jsonl", rows))
    assert task.label_names == tuple(str(i) for i in range(11))
    assert all(isinstance(text, tuple) for text in task.train_texts)


def test__load_task__whole_floats_in_one_split__the_classes_of_the_integers(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(8)])
    write(tmp_path / "test.jsonl", [{"text": f"q{i}", "label": float(i % 2)} for i in range(4)])
    task = load_task(str(tmp_path))
    assert (task.label_names, task.test_labels) == (("0", "1"), [0, 1, 0, 1])


def test__load_task__class_of_test_rows_alone__said(tmp_path: Path, all_logs: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train.jsonl", [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(8)])
    write(tmp_path / "test.jsonl", [{"text": f"q{i}", "label": "abc"[i % 3]} for i in range(6)])
    load_task(str(tmp_path))
    assert re.search("2 test texts of .* are of 1 classes without a training row", all_logs.text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty"),
        ([{"word": "a", "label": "b"}] * 4, r"without \['text'\]; name those"),
        ([{"text": "a"}] * 4, r"without \['label'\]; name those"),
        ([{"text": "a", "label": "b", "split": "odd"}] * 4, r"holds \['odd'\]"),
        ([{"text": 3, "label": "b"}] * 4, "must be a string"),
        ([{"text": "a", "label": " "}] * 4, "no label"),
        ([{"text": "a", "label": 0.5}] * 4, "numbers must be whole"),
        ([{"text": f"{i}", "label": ("a", "b", "a ")[i % 3]} for i in range(12)], "differ by spaces alone"),
    ],
)
def test__load_task__broken_file__says_what_is_wrong(rows: list, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load_task(write(tmp_path / "broken.jsonl", rows))


def test__load_task__columns_of_other_names__the_same_task(tmp_path: Path) -> None:
    rows = rows_of(8)
    odd = [{"review": row["text"], "stars": row["label"], "text": "other"} for row in rows]
    columns = {"text": "review", "label": "stars"}
    usual = load_task(write(tmp_path / "usual.jsonl", rows))
    task = load_task(write(tmp_path / "odd.jsonl", odd), columns=columns)
    assert task.train_texts == usual.train_texts
    assert task.test_texts == usual.test_texts
    assert task.label_names == usual.label_names
    with pytest.raises(ValueError, match=r"without \['review', 'stars'\]"):
        load_task(str(tmp_path / "usual.jsonl"), columns=columns)


def test__load_task__no_table__value_error(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{no json\n")
    with pytest.raises(ValueError, match="Line 1 of .*broken.jsonl is not JSON"):
        load_task(str(tmp_path / "broken.jsonl"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="must hold a file train and a file test"):
        load_task(str(tmp_path / "folder"))


def test__load_task__unknown_name__lists_the_known() -> None:
    with pytest.raises(ValueError, match='There is no task "odd".*sst2.*groups paper, raft, multiclass'):
        load_task("odd")


def test__load_task__hub_out_of_reach__os_error_names_data_set() -> None:
    with pytest.raises(OSError, match="stanfordnlp/sst2 of the Hub, which cannot be loaded"):
        load_task("sst2")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of the Hub, made here."""
    import datasets

    names = ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])
    news = Features({"text": Value("string"), "label": names})
    shares = Features({"text": Value("string"), "toxicity": Value("float32")})

    def load(path: str, config: str | None, revision: str | None) -> DatasetDict:
        if path == "fancyzhx/ag_news":
            columns, features = {"label": [i % 4 for i in range(12)]}, news
        else:
            columns, features = {"toxicity": [i / 8 for i in range(8)]}, shares
        count = len(next(iter(columns.values())))
        texts = {split: [f"{split} {i}" for i in range(count)] for split in ("train", "test")}
        return DatasetDict(
            {split: Dataset.from_dict({"text": own, **columns}, features=features) for split, own in texts.items()}
        )

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.usefixtures("hub")
def test__load_task__one_against_the_rest__two_classes() -> None:
    task = load_task("ag_news-sports")
    assert task.label_names == ("not Sports", "Sports")
    assert task.train_labels == [0, 1, 0, 0] * 3
    assert load_task("ag_news").label_names == ("World", "Sports", "Business", "Sci/Tech")


@pytest.mark.usefixtures("hub")
def test__load_task__shares__two_classes_at_the_threshold() -> None:
    assert load_task("civil_comments").test_labels == [0, 0, 0, 0, 1, 1, 1, 1]


def test__registry__groups__are_of_known_tasks_without_repetition() -> None:
    assert SEEDS == (42, 69, 128, 512, 1024)
    assert {name for names in GROUPS.values() for name in names} == set(TASKS)
    assert len(GROUPS["raft"]) == 11
    assert len(GROUPS["paper"]) == 13
    assert registry_module.TASKS["ag_news-scitech"].positive == "Sci/Tech"
