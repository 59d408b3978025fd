"""Saving over a folder: all of it or nothing, whenever the process dies; other files stay."""

import os
import random
import signal
import stat
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.builders import build_reasoner, make_examples, make_pipeline, read_files, save_backbone
from helpers.full_disk import fill, small_disk  # noqa: F401 (a fixture)
from transformers import AutoModel, pipeline

from transformers_tart import TartClassificationPipeline, TartForSequenceClassification, View
from transformers_tart.errors import CorruptFileError
from transformers_tart.files import staged


pytestmark = pytest.mark.core


KILLS = 30
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


def answers(folder: Path) -> list:
    return pipeline("tart-classification", model=str(folder))(TEXTS)


def kill_while_saving(tasks: Sequence[TartClassificationPipeline], folder: Path, seconds: float) -> None:
    """Kill a process, forked to spare the imports, while it saves tasks over each other."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            tasks[0].save_pretrained(folder)
            os.write(write, b"1")
            while True:
                for task in reversed(tasks):
                    task.save_pretrained(folder)
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"1"
    os.close(read)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test__save__killed_at_any_moment__answers_of_one_task_or_none(tmp_path: Path) -> None:
    base = save_backbone(tmp_path / "base")
    tasks = [make_pipeline(TartForSequenceClassification.from_backbone(base, pooling=p)) for p in ("mean", "max")]
    expected = [task(TEXTS) for task in tasks]
    assert expected[0] != expected[1]
    generator, torn = random.Random(0), 0
    for i in range(KILLS):
        folder = tmp_path / f"task{i}"
        folder.mkdir()
        (folder / ".git").mkdir()
        (folder / ".git" / "HEAD").write_text("ref")
        (folder / "notes.txt").write_text("mine")
        kill_while_saving(tasks, folder, generator.uniform(0, 0.2))
        assert (folder / ".git" / "HEAD").read_text() + (folder / "notes.txt").read_text() == "refmine"
        if (folder / "config.json").exists():
            assert answers(folder) in expected
            continue
        torn += 1
        with pytest.raises((OSError, ValueError), match=rf"{folder}"):
            AutoModel.from_pretrained(folder)
        with pytest.raises(CorruptFileError, match=rf"{folder} is torn"):
            TartForSequenceClassification.from_pretrained(folder)
    print(f"{torn} of {KILLS} folders were torn")


@pytest.mark.slow
def test__save__killed_before__is_repaired_by_the_next_save(tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
    classify.save_pretrained(tmp_path / "task")
    (tmp_path / "task" / ".partial-killed").mkdir()
    (tmp_path / "task" / ".partial-killed" / "config.json").write_text("{")
    (tmp_path / "task" / "config.json").unlink()
    before = read_files(tmp_path / "task")
    classify.save_pretrained(tmp_path / "task")
    after = read_files(tmp_path / "task")
    assert sorted(after) == sorted({*before, "config.json"} - {".partial-killed/config.json"})
    assert answers(tmp_path / "task") == classify(TEXTS)


@pytest.mark.slow
def test__save__smaller_task_over_a_larger__leaves_nothing_of_it(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"), build_reasoner())
    model.save_pretrained(tmp_path / "shards", max_shard_size="1KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards")
    assert read_files(tmp_path / "shards") == read_files(tmp_path / "whole")
    make_pipeline(model).save_pretrained(tmp_path / "shards")
    model.set_support(None)
    model.save_pretrained(tmp_path / "shards")
    assert not (tmp_path / "shards" / "support.safetensors").exists()


def test__save__backbone_inside__replaces_the_former_one_whole(tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"))
    model.save_pretrained(tmp_path / "task", include_backbone=True, max_shard_size="20KB")
    model.save_pretrained(tmp_path / "task", include_backbone=True)
    assert sorted(path.name for path in (tmp_path / "task" / "backbone").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test__save__files__have_the_permissions_of_the_user(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
        classify.save_pretrained(tmp_path / "task", include_backbone=True)
    finally:
        os.umask(previous)
    files = [path for path in (tmp_path / "task").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


@pytest.mark.slow
def test__save__full_disk__says_so_and_keeps_the_former_task(
    small_disk: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    base = save_backbone(tmp_path / "base")
    small = make_pipeline(TartForSequenceClassification.from_backbone(base))
    wide = View(pooling="mean+max+first+second+last", layers="all")  # more bytes an example, which are soon read
    large = make_pipeline(
        TartForSequenceClassification.from_backbone(base, views=[wide]), examples=make_examples(1000)
    )
    small.save_pretrained(small_disk / "task")
    before, kept = answers(small_disk / "task"), read_files(small_disk / "task")
    for save in (large.save_pretrained, large.model.reasoner.save_pretrained):
        fill(small_disk)
        with pytest.raises(OSError, match="No space left on device"):
            save(small_disk / "task")
        assert read_files(small_disk / "task") == kept
        (small_disk / "filler").unlink()
    with pytest.raises(OSError, match="No space left on device"):
        large.save_pretrained(small_disk / "task")
    assert read_files(small_disk / "task") == kept
    assert answers(small_disk / "task") == before


def test__staged__block_fails__folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")

    def fail() -> None:
        with staged(tmp_path) as stage:
            (stage / "config.json").write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert read_files(tmp_path) == {"config.json": b"old"}


@pytest.mark.parametrize("edit", [False, True])
def test__save__other_examples__card_follows_unless_edited(edit: bool, tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
    classify.save_pretrained(tmp_path / "task")
    card = tmp_path / "task" / "README.md"
    if edit:
        card.write_text(card.read_text().replace("# org/name", "# My classifier"))
    before = card.read_text()
    classify.set_examples(make_examples(labels=("sales", "support", "other")))
    classify.save_pretrained(tmp_path / "task")
    assert (card.read_text() == before) is edit
    assert ("`sales`" in card.read_text()) is not edit


def test__save__card_of_the_user_in_another_encoding__stays(tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "README.md").write_bytes("# Für mich".encode("latin-1"))
    classify.save_pretrained(tmp_path / "task")
    assert (tmp_path / "task" / "README.md").read_bytes() == b"# F\xfcr mich"
    assert answers(tmp_path / "task") == classify(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test__load__damaged_tokenizer__names_the_folder(content: bytes, tmp_path: Path) -> None:
    classify = make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))
    classify.save_pretrained(tmp_path / "task")
    (tmp_path / "task" / "tokenizer.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=f"{tmp_path / 'task'} cannot be loaded"):
        answers(tmp_path / "task")
