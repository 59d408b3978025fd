"""Tasks of images and recordings in folders and tables of one's own."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.media_given import ENCODE, in_classes, label_of, media_table, png, wav, write_files

from transformers_tart.evaluation.tasks import load_task


@pytest.mark.parametrize("modality", ["image", "audio"])
def test__load_task__folders_of_splits__labels_are_the_folders(modality: str, tmp_path: Path) -> None:
    files = in_classes(["10", "9", "9", "10"], modality, "train/") | in_classes(["9", "10"], modality, "test/", 10)
    (tmp_path / ".cache").mkdir()
    task = load_task(write_files(tmp_path, {**files, "README.md": b"x", "train/9/.hidden": b"x"}))
    assert (task.modality, task.label_names) == (modality, ("9", "10"))
    assert Counter(task.train_labels) == {0: 2, 1: 2}
    assert sorted(task.test_texts) == sorted(ENCODE[modality](i) for i in (10, 11))
    assert {name.split("/")[1] for name in files} == set(task.label_names)
    assert all(label_of(task, content) == name.split("/")[1] for name, content in files.items())


def test__load_task__folders_of_classes__three_quarters_are_tested(tmp_path: Path) -> None:
    task = load_task(write_files(tmp_path, in_classes(["cat", "dog"] * 20)))
    assert (len(task.train_texts), len(task.test_texts)) == (10, 30)
    assert task == load_task(str(tmp_path))
    assert label_of(task, png(7)) == "dog"


def test__load_task__class_called_train__is_a_class(tmp_path: Path) -> None:
    task = load_task(write_files(tmp_path, in_classes(["train", "plane"] * 8)))
    assert task.label_names == ("plane", "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (in_classes(["a", "b"]) | {"c/.gitkeep": b""}, "c of a class holds no files"),
        (in_classes(["a", "b"]) | {"b/x.txt": b"x"}, r"b of a class holds \['x.txt'\]"),
        (in_classes(["a", "b"]) | {"b/more/1.png": png(9)}, r"b of a class holds \['more'\]"),
        (in_classes(["a", "b"]) | {"b/1.wav": wav(1)}, "holds images and recordings"),
        (in_classes(["a", "b"]) | {"1.png": png(9)}, r"a folder for each class.*\['1.png'\]"),
        (in_classes(["a"] * 8), "training images of .* have one label"),
        (in_classes(["a", "b"], parent="train/"), "a folder train and a folder test"),
        (in_classes(["train", "test"]), "train must hold a folder for each class"),
        (in_classes(["a", "b"] * 4) | {"a/9.png": b""}, "9.png is empty"),
        ({"1.png": png(9)}, r"a folder for each class.*holds the files \['1.png'\]"),
    ],
)
def test__load_task__broken_folder__says_what_is_wrong(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_task(write_files(tmp_path, files))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test__load_task__table_of_paths__relative_to_the_table(ending: str, tmp_path: Path) -> None:
    rows = [{"audio": f"in/{i}.wav", "label": ("no", "yes")[i % 2], "split": "train"} for i in range(4)]
    rows += [{"audio": f"in/{i}.wav", "label": ("no", "yes")[i % 2], "split": "dev"} for i in range(4, 10)]
    write_files(tmp_path, {f"in/{i}.wav": wav(i) for i in range(10)})
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    text = "\n".join(lines if ending == "csv" else map(json.dumps, rows))
    task = load_task(write_files(tmp_path, {f"mine.{ending}": text.encode()}) + f"/mine.{ending}")
    assert (task.name, task.modality, task.label_names) == ("mine", "audio", ("no", "yes"))
    assert task.train_texts == [wav(i) for i in range(4)]
    assert task.test_labels == [0, 1] * 3


@pytest.mark.parametrize("modality", ["image", "audio"])
def test__load_task__parquet_of_datasets__classes_in_its_order(modality: str, tmp_path: Path) -> None:
    media_table(40, modality).to_parquet(tmp_path / "mine.parquet")
    task = load_task(str(tmp_path / "mine.parquet"))
    assert (task.modality, task.label_names) == (modality, ("b", "a"))
    assert (len(task.train_texts), len(task.test_texts)) == (10, 30)
    assert all(label_of(task, ENCODE[modality](i)) == "ba"[i % 2] for i in range(40))


@pytest.mark.slow
def test__load_task__long_parquet__drawn_rows_with_their_labels(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 1000)):
        media_table(600, "image", start=start).to_parquet(tmp_path / f"{split}.parquet")
    task = load_task(str(tmp_path), max_test=50, seed=3)
    assert (len(task.train_texts), Counter(task.test_labels)) == (600, {0: 25, 1: 25})
    numbers = {png(i): i for i in range(1600)}
    assert len(numbers) == 1600
    assert task.test_labels == [numbers[content] % 2 for content in task.test_texts]
    assert max(numbers[content] for content in task.test_texts) > 1512  # some are of the last batch of rows
    assert task == load_task(str(tmp_path), max_test=50, seed=3)
    assert task.test_texts != load_task(str(tmp_path), max_test=50, seed=4).test_texts


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "gone.png", "label": "a"}] * 4, "gone.png, which does not exist"),
        ([{"image": None, "label": "a"}] * 4, "holds NoneType; it must hold the bytes"),
        ([{"image": "1.png", "name": "a"}] * 4, r"\['image', 'name'\], without \['label'\]"),
        ([{"image": "1.png", "label": None}] * 4, "no label in the column label"),
        ([{"image": "1.png", "audio": "1.wav", "label": "a"}] * 4, "a task has one of them"),
        ([{"image": "1.png", "label": "a"}] * 4, "training images of broken have one label"),
    ],
)
def test__load_task__broken_table__says_what_is_wrong(
    rows: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    write_files(tmp_path, {"1.png": png(1), "broken.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    with pytest.raises(ValueError, match=message):
        load_task(str(tmp_path / "broken.jsonl"))


def test__load_task__no_parquet__value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        load_task(write_files(tmp_path, {"x.parquet": b"no table"}) + "/x.parquet")


def test__load_task__tables_of_different_modalities__says_so(tmp_path: Path) -> None:
    media_table(4, "image").to_parquet(tmp_path / "train.parquet")
    media_table(4, "audio").to_parquet(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=r"'test.parquet': 'audio', 'train.parquet': 'image'"):
        load_task(str(tmp_path))


def test__load_task__text_beside_an_image__is_a_task_of_texts(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "image": f"{i}.png", "label": "ab"[i % 2]} for i in range(16)]
    task = load_task(write_files(tmp_path, {"x.jsonl": "\n".join(map(json.dumps, rows)).encode()}) + "/x.jsonl")
    assert task.modality == "text"
