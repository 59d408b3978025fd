"""Checksums of the small files of a task or reasoner, and concurrent saves."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_reasoner, make_pipeline, read_files, save_backbone, score_all
from transformers import AutoModel, pipeline

from transformers_tart import SupportSet, TartClassificationPipeline, TartForSequenceClassification, TartReasoner
from transformers_tart.errors import CorruptFileError


TEXTS = ["w1 w2 w3", "w9 w8 w7 w6"]


def flip(path: Path, place: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def fields_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def classify(tmp_path: Path) -> TartClassificationPipeline:
    """A fitted task on a saved backbone."""
    return make_pipeline(TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base")))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["model.safetensors", "support.safetensors"])
def test__load__bit_flipped_in_a_task__names_the_file(
    file: str, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    classify.save_pretrained(tmp_path / "task")
    flip(tmp_path / "task" / file)
    with pytest.raises(CorruptFileError, match=f"^{file} of .*task is not the file that was saved"):
        pipeline("tart-classification", model=str(tmp_path / "task"))
    fields = fields_of(tmp_path / "task")
    assert set(fields.pop("sha256")) == {"model.safetensors", "support.safetensors"}
    (tmp_path / "task" / "config.json").write_text(json.dumps(fields))
    assert AutoModel.from_pretrained(tmp_path / "task").support is not None


def test__load__bit_flipped_in_a_reasoner__names_the_file(tmp_path: Path) -> None:
    build_reasoner().save_pretrained(tmp_path / "whole")
    build_reasoner().save_pretrained(tmp_path / "shards", max_shard_size="1KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert set(fields_of(tmp_path / "shards")["sha256"]) == {shard.name for shard in shards}
    for path in (tmp_path / "whole" / "model.safetensors", shards[1]):
        assert TartReasoner.from_pretrained(path.parent).config.sha256 is None
        flip(path)
        for load in (TartReasoner, AutoModel):
            with pytest.raises(CorruptFileError, match=f"^{path.name} of .* is not the file that was saved"):
                load.from_pretrained(path.parent)


@pytest.mark.slow
def test__load__support_or_reasoner_of_another_task__refused(
    classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    classify.save_pretrained(tmp_path / "task")
    other = make_pipeline(TartForSequenceClassification.from_backbone(str(tmp_path / "base"), build_reasoner()))
    other.set_examples([{"text": "w3", "label": "ham"}, {"text": "w8", "label": "spam"}])
    other.save_pretrained(tmp_path / "other")
    for file in ("support.safetensors", "model.safetensors"):
        mixed = tmp_path / f"mixed {file}"
        shutil.copytree(tmp_path / "task", mixed)
        shutil.copy(tmp_path / "other" / file, mixed)
        with pytest.raises(CorruptFileError, match="not the file that was saved|do not fit its config|incomplete"):
            AutoModel.from_pretrained(mixed)


@pytest.mark.parametrize("value", ["x", ["model.safetensors"], {"model.safetensors": 1}, {"../x": "0" * 64}])
def test__load__malformed_checksums__named(
    value: object, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    classify.save_pretrained(tmp_path / "task")
    fields = fields_of(tmp_path / "task")
    (tmp_path / "task" / "config.json").write_text(json.dumps({**fields, "sha256": value}))
    with pytest.raises((ValueError, OSError), match="sha256"):
        AutoModel.from_pretrained(tmp_path / "task")


@pytest.mark.slow
def test__save__loaded_again__same_bytes(classify: TartClassificationPipeline, tmp_path: Path) -> None:
    classify.save_pretrained(tmp_path / "task")
    pipeline("tart-classification", model=str(tmp_path / "task")).save_pretrained(tmp_path / "again")
    before, after = (read_files(tmp_path / name) for name in ("task", "again"))
    for files in (before, after):
        del files["tokenizer_config.json"]  # to which transformers adds how it was loaded
    assert before == after
    assert fields_of(tmp_path / "task")["reasoner_config"].get("sha256") is None


def test__load__support_set_of_0_1__has_no_checksum(classify: TartClassificationPipeline, tmp_path: Path) -> None:
    classify.save_pretrained(tmp_path / "task")
    path = tmp_path / "task" / "support.safetensors"
    support = SupportSet.load(path)
    SupportSet(support.embeddings, support.labels, support.label_names).save(path)
    assert len(AutoModel.from_pretrained(tmp_path / "task").support) == len(support)


def save_many(save: Callable[[], None], errors: list[Exception]) -> None:
    for _ in range(4):
        try:
            save()
        except Exception as err:
            errors.append(err)


@pytest.mark.slow
def test__save__threads_to_one_folder__one_whole_task(classify: TartClassificationPipeline, tmp_path: Path) -> None:
    other = make_pipeline(TartForSequenceClassification.from_backbone(str(tmp_path / "base"), pooling="last"))
    expected = [score_all(each, TEXTS) for each in (classify, other)]
    errors: list[Exception] = []
    threads = [
        threading.Thread(target=save_many, args=(lambda each=each: each.save_pretrained(tmp_path / "task"), errors))
        for each in (classify, other, classify)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = score_all(pipeline("tart-classification", model=str(tmp_path / "task")), TEXTS)
    assert any(torch.equal(found, each) for each in expected)
    assert not [name for name in os.listdir(tmp_path / "task") if name.startswith(".")]


@pytest.mark.slow
def test__save__threads_with_and_without_the_backbone__config_stays(
    classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    model, errors = classify.model, []
    config = model.config
    calls = [
        lambda: model.save_pretrained(tmp_path / "inside", include_backbone=True),
        lambda: model.save_pretrained(tmp_path / "beside"),
    ]
    threads = [threading.Thread(target=save_many, args=(call, errors)) for call in calls * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, model.config is config) == ([], True)
    assert fields_of(tmp_path / "beside")["base_model_name_or_path"] == str(tmp_path / "base")
    assert fields_of(tmp_path / "inside")["base_model_name_or_path"] is None


@pytest.mark.parametrize("folder", ["", " ", "a\0b", None])
def test__save__no_folder__refused(
    folder: Any, classify: TartClassificationPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for save in (classify.save_pretrained, classify.model.save_pretrained):
        with pytest.raises((ValueError, TypeError), match="^save_directory is "):
            save(folder)
    assert not os.listdir()


@pytest.mark.parametrize("include_backbone", [False, True])
def test__save__folder_of_the_backbone__refused(
    include_backbone: bool, classify: TartClassificationPipeline, tmp_path: Path
) -> None:
    before = read_files(tmp_path / "base")
    (tmp_path / "link").symlink_to(tmp_path / "base")
    for save in (classify.save_pretrained, classify.model.save_pretrained):
        with pytest.raises(ValueError, match="is the folder of the backbone, whose files would be lost"):
            save(tmp_path / "link", include_backbone=include_backbone)
    assert read_files(tmp_path / "base") == before
