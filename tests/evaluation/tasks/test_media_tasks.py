"""Tasks of images and recordings: what is read of them, the Hub, and real ones."""

import io
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from helpers.builders import SHARED
from helpers.media_given import encode_audio, encode_image, label_of, media_table, png, wav, write_files
from PIL import Image as PillowImage
from sklearn.linear_model import LogisticRegression

from transformers_tart.evaluation.tasks import GROUPS, TASKS, Item, Task, load_task
from transformers_tart.evaluation.tasks import rows as rows_module
from transformers_tart.evaluation.tasks.registry import TaskSource
from transformers_tart.evaluation.tasks.rows import Rows, Splits, build_task
from transformers_tart.inputs.modality import IMAGE


pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("modality", "items", "message"),
    [
        ("video", [b"1", b"2"], 'modality is "video"'),
        ("image", ["a.png", "b.png"], "images of made must be bytes of encoded files; 2 are not"),
        ("text", ["a", b"2"], "texts of made must be strings or pairs of them; 1 are not"),
        ("audio", [], "0 recordings and 2 labels"),
    ],
)
def test__task__items_of_another_modality__says_so(modality: str, items: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task("made", ("a", "b"), items, [0, 1], items, [0, 1], modality)


def test__without_leaks__same_recording_in_both_splits__left_out(all_logs: pytest.LogCaptureFixture) -> None:
    recordings = [wav(i) for i in range(6)]
    task = Task("made", ("a", "b"), recordings[:4], [0, 1, 0, 1], recordings[3:], [1, 0, 1], "audio")
    assert task.test_texts[0] in task.train_texts
    assert task.without_leaks().train_texts == recordings[:3]
    assert "1 training recordings of made stand in the test split too" in all_logs.text


def numbered_rows(count: int, labels: Sequence[object], read: list[int]) -> Rows:
    """Rows that note which of them are read."""

    def read_rows(indices: Sequence[int]) -> list[Item]:
        read.extend(indices)
        return [png(i) for i in indices]

    return Rows([labels[i % len(labels)] for i in range(count)], read_rows)


def test__build_task__large_data__only_what_is_drawn_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_TRAIN", 12)
    train, test = [], []
    data = Splits(IMAGE, numbered_rows(900, "aabc", train), numbered_rows(400, "abc", test))
    task = build_task("made", data, TaskSource("here", classes=("c", "a")), 30, seed=1)
    assert task.label_names == ("c", "a")
    assert (Counter(task.train_labels), Counter(task.test_labels)) == ({0: 4, 1: 8}, {0: 15, 1: 15})
    assert task.train_labels == ["c_a".index("aabc"[i % 4]) // 2 for i in train]
    assert (len(train), len(test)) == (12, 30)
    with pytest.raises(ValueError, match=r"no rows of the classes \['x'\]; its classes are \['a', 'b', 'c'\]"):
        build_task("made", data, TaskSource("here", classes=("a", "x")), 30, seed=1)
    with pytest.raises(ValueError, match="must be at least 1"):
        build_task("made", data, TaskSource("here"), 0, seed=1)
    assert len(train) == 12


def test__join__several_files__rows_in_any_order() -> None:
    read: list[int] = []
    rows = Rows.join([numbered_rows(3, "ab", read), numbered_rows(2, "c", read)])
    assert rows.labels == ["a", "b", "a", "c", "c"]
    assert rows.read([4, 0, 3, 2]) == [png(1), png(0), png(0), png(2)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Data sets of the Hub, made here, and with what they were asked for."""
    import datasets

    digits, words = tuple("0123456789"), ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed")
    asked: list[dict[str, Any]] = []

    def load(path: str, config: str | None, **options: Any) -> DatasetDict:
        asked.append({"path": path, "config": config, **options})
        modality, names = ("image", digits) if "mnist" in path else ("audio", words)
        data = {split: media_table(44, modality, names, start) for split, start in (("train", 0), ("test", 50))}
        if "digit" in path:
            data = {split: table.cast_column("label", Value("int64")) for split, table in data.items()}
        if "cifar" in path:
            raise RuntimeError("Dataset scripts are no longer supported, but found cifar10.py")
        return DatasetDict(data)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test__load_task__pair_of_the_hub__rows_of_both_as_they_are_encoded(hub: list[dict[str, Any]]) -> None:
    task = load_task("mnist-2_vs_4", max_test=6)
    assert (task.modality, task.label_names) == ("image", ("4", "2"))
    assert sorted(task.train_texts) == sorted(png(i) for i in range(44) if i % 10 in (2, 4))
    assert label_of(task, png(12)) == "2"
    assert len(task.test_texts) == 6
    assert hub == [{"path": "ylecun/mnist", "config": None, "revision": None}]


def test__load_task__recordings_of_the_hub__not_decoded(hub: list[dict[str, Any]]) -> None:
    task = load_task("speech_commands")
    assert (task.modality, len(task.label_names), task.label_names[:2]) == ("audio", 10, ("yes", "no"))
    assert wav(10) not in task.train_texts  # "bed"
    assert label_of(task, wav(13)) == "up"
    assert hub[0]["revision"] == "refs/convert/parquet"
    assert hub[0]["data_dir"] == "v0.02"
    assert load_task("speech_commands-yes_vs_no").label_names == ("no", "yes")


@pytest.mark.usefixtures("hub")
def test__load_task__numbers_without_names__are_the_classes() -> None:
    assert load_task("fsdd").label_names == tuple(str(i) for i in range(11))


@pytest.mark.usefixtures("hub")
def test__load_task__data_set_that_is_a_script__os_error_names_it() -> None:
    with pytest.raises(OSError, match=r"uoft-cs/cifar10 of the Hub, which cannot be loaded: Dataset scripts"):
        load_task("cifar10")


def test__load_task__hub_rows_with_paths_alone__files_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    write_files(tmp_path, {f"{i}.png": png(i) for i in range(8)})
    features = Features({"img": Image(), "label": ClassLabel(names=["airplane", "automobile"])})
    data = {
        split: Dataset.from_dict({"img": [str(tmp_path / f"{i}.png") for i in rows], "label": [0, 1] * 2}, features)
        for split, rows in (("train", range(4)), ("test", range(4, 8)))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **options: DatasetDict(data))
    task = load_task("cifar10-airplane_vs_automobile")
    assert (task.train_texts, task.test_labels) == ([png(i) for i in range(4)], [1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"ylecun/mnist has the columns \['img', 'label'\], without \['image'\]"):
        load_task("mnist")


def test__registry__groups_of_images_and_audio__pairs_and_whole_sets() -> None:
    assert {TASKS[name].modality for name in GROUPS["vision"]} == {"image"}
    assert {TASKS[name].modality for name in GROUPS["audio"]} == {"audio"}
    assert {TASKS[name].modality for group in ("paper", "raft", "multiclass") for name in GROUPS[group]} == {"text"}
    for name in (*GROUPS["vision"], *GROUPS["audio"]):
        first, _, second = name.partition("-")[2].partition("_vs_")
        assert TASKS[name].classes == (second, first) or not second


def load_arrays(name: str) -> dict[str, np.ndarray]:
    if not (SHARED / "data" / name).exists():
        pytest.skip(f"needs {name}, which is absent here")
    with np.load(SHARED / "data" / name) as arrays:
        return {key: arrays[key] for key in arrays}


@pytest.mark.slow
def test__load_task__mnist_in_folders__digits_can_be_told_apart(tmp_path: Path) -> None:
    arrays = load_arrays("mnist_small.npz")
    for i in [*range(300), *range(2000, 2300)]:
        split, label = arrays["split"][i], arrays["label"][i]
        write_files(tmp_path, {f"{split}/{label}/{i}.png": encode_image(arrays["image"][i])})
    task = load_task(str(tmp_path))
    assert task.label_names == tuple("0123456789")
    pixels = [
        np.stack([np.asarray(PillowImage.open(io.BytesIO(content))) for content in items]).reshape(len(items), -1)
        for items in (task.train_texts, task.test_texts)
    ]
    found = LogisticRegression(max_iter=300).fit(pixels[0] / 255, task.train_labels).predict(pixels[1] / 255)
    assert np.mean(found == task.test_labels) > 0.75


def test__load_task__spoken_digits_in_folders__samples_as_recorded(tmp_path: Path) -> None:
    arrays = load_arrays("fsdd.npz")
    spoken = {}
    for i in range(0, 600, 3):
        samples = arrays["audio"][i, : arrays["length"][i]]
        content = encode_audio(samples, int(arrays["rate"]))
        spoken[content] = (str(arrays["label"][i]), str(arrays["split"][i]), samples)
        write_files(tmp_path, {f"{arrays['split'][i]}/{arrays['label'][i]}/{i}.wav": content})
    task = load_task(str(tmp_path))
    assert (task.modality, len(task.train_texts), len(task.test_texts)) == ("audio", 100, 100)
    for split, items, labels in (
        ("train", task.train_texts, task.train_labels),
        ("test", task.test_texts, task.test_labels),
    ):
        for content, label in zip(items, labels, strict=True):
            assert spoken[content][:2] == (task.label_names[label], split)
            with wave.open(io.BytesIO(content)) as recording:
                assert recording.readframes(recording.getnframes()) == spoken[content][2].tobytes()
