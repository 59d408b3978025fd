"""Folders that are damaged, incomplete or of another kind: the error names the part and a remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.builders import (
    build_reasoner,
    build_tokenizer,
    make_examples,
    make_pipeline,
    save_backbone,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel, pipeline

from transformers_tart import SupportSet, TartForSequenceClassification, TartReasoner
from transformers_tart.errors import BackboneMismatchError, BackboneNotFoundError, CorruptFileError
from transformers_tart.support import METADATA_KEY


pytestmark = pytest.mark.core


NAMES = '{"label_names": ["a", "b"]}'


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone, a reasoner, and a task that refers to the backbone."""
    folder = tmp_path_factory.mktemp("saved")
    model = TartForSequenceClassification.from_backbone(save_backbone(folder / "base"), build_reasoner())
    make_pipeline(model).save_pretrained(folder / "task")
    build_reasoner().save_pretrained(folder / "reasoner")
    return folder


@pytest.fixture
def task(saved: Path, tmp_path: Path) -> Path:
    """A copy of the task."""
    return shutil.copytree(saved / "task", tmp_path / "task")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def write_html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>" * 20)


DAMAGE = pytest.mark.parametrize("damage", [truncate, empty, fill_with_garbage, write_html])


@DAMAGE
def test__load__damaged_weights__names_the_folder_and_what_to_do(damage: Callable, task: Path) -> None:
    damage(task / "model.safetensors")
    with pytest.raises(CorruptFileError, match=rf"The weights in {task} are damaged.*force_download=True"):
        AutoModel.from_pretrained(task)


@DAMAGE
def test__load__damaged_support__names_the_file_and_what_to_do(damage: Callable, task: Path) -> None:
    damage(task / "support.safetensors")
    with pytest.raises(CorruptFileError, match=r"support.safetensors is no readable support set .*fit the task again"):
        AutoModel.from_pretrained(task)


@pytest.mark.parametrize("change", ["shape", "missing", "renamed"])
def test__load__weights_that_do_not_fit__clear_error(change: str, task: Path) -> None:
    weights = load_file(task / "model.safetensors")
    name = "reasoner.architecture.temperature.weight"
    tensor = weights.pop(name)
    if change != "missing":
        weights[name if change == "shape" else f"{name}_old"] = tensor[:, :3].clone() if change == "shape" else tensor
    save_file(weights, task / "model.safetensors", metadata={"format": "pt"})
    expected = (
        "weights of the reasoner in .* do not fit its config"
        if change == "shape"
        else r"incomplete: \['architecture.temperature.weight'\]"
    )
    with pytest.raises(CorruptFileError, match=expected):
        AutoModel.from_pretrained(task)


def test__load_reasoner__weights_of_other_sizes__clear_error(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved / "reasoner", tmp_path / "reasoner")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 20}))
    with pytest.raises(CorruptFileError, match="do not fit its config"):
        TartReasoner.from_pretrained(folder)


def test__load__weights_missing__clear_error(task: Path) -> None:
    (task / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model.safetensors"):
        AutoModel.from_pretrained(task)


def test__load__only_pickled_weights__are_never_read(task: Path) -> None:
    torch.save(load_file(task / "model.safetensors"), task / "pytorch_model.bin")
    (task / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"safetensors"):
        AutoModel.from_pretrained(task)


def test__load__support_missing__clear_error(task: Path) -> None:
    (task / "support.safetensors").unlink()
    with pytest.raises(CorruptFileError, match="announces a support set, but support.safetensors cannot be loaded"):
        AutoModel.from_pretrained(task)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"labels": None}, NAMES),
        ({}, None),
        ({}, "{"),
        ({}, "[1]"),
        ({}, "{}"),
        ({"labels": torch.tensor([0, 1, 0])}, NAMES),
        ({"labels": torch.tensor([0, 1, 0, 5])}, NAMES),
        ({"labels": torch.tensor([0.0, 1.0, 0.0, 1.0])}, NAMES),
        ({"embeddings": torch.full((4, 3), torch.nan)}, NAMES),
    ],
    ids=["no_labels", "no_facts", "half_json", "list", "no_names", "lengths", "out_of_range", "floats", "nan"],
)
def test__support_set__file_with_wrong_content__clear_error(changes: dict, facts: str | None, tmp_path: Path) -> None:
    tensors = {"embeddings": torch.randn(4, 3), "labels": torch.tensor([0, 1, 0, 1]), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    metadata = {"format": "pt"} if facts is None else {METADATA_KEY: facts}
    save_file(tensors, tmp_path / "support.safetensors", metadata=metadata)
    with pytest.raises(CorruptFileError, match=r"support.safetensors is no readable support set"):
        SupportSet.load(tmp_path / "support.safetensors")


@pytest.mark.parametrize("kind", ["renamed", "hub_id"])
def test__load__backbone_missing__names_it_and_says_what_to_pass(kind: str, task: Path) -> None:
    config = json.loads((task / "config.json").read_text())
    base = str(task.parent / "nowhere") if kind == "renamed" else "org/nowhere"
    (task / "config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    with pytest.raises(
        BackboneNotFoundError, match=rf'(?s)backbone "{base}".*pass a copy: from_pretrained\(..., backbone='
    ):
        AutoModel.from_pretrained(task)
    with pytest.raises(Exception, match=rf'(?s)backbone "{base}".*pass a copy'):
        pipeline("tart-classification", model=str(task), tokenizer=build_tokenizer())


def test__load__included_backbone_missing__clear_error(saved: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(saved / "task").save_pretrained(tmp_path / "whole", include_backbone=True)
    shutil.rmtree(tmp_path / "whole" / "backbone")
    with pytest.raises(BackboneNotFoundError, match="(?s)backbone in backbone of .* cannot be loaded.*pass a copy"):
        AutoModel.from_pretrained(tmp_path / "whole")


def test__load__no_backbone_named__says_what_to_pass(task: Path) -> None:
    config = json.loads((task / "config.json").read_text())
    (task / "config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match="names no backbone; pass one: backbone="):
        AutoModel.from_pretrained(task)


@pytest.mark.parametrize(("part", "message"), [
    ("base", 'holds a model of type "llama", not a TART repository.*TartForSequenceClassification.from_backbone'),
    ("reasoner", "holds a reasoner alone; load it with TartReasoner.from_pretrained, or compose"),
])  # fmt: skip
def test__load__another_kind_of_folder__says_how_to_load_it(part: str, message: str, saved: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TartForSequenceClassification.from_pretrained(saved / part)
    config = AutoModel.from_pretrained(saved / part).config
    with pytest.raises(ValueError, match='The config is of model type "(llama|tart_reasoner)", not "tart"'):
        TartForSequenceClassification.from_pretrained(saved / "task", config=config)


def test__load__unknown_protocol__says_which_there_are(task: Path) -> None:
    config = json.loads((task / "config.json").read_text())
    (task / "config.json").write_text(json.dumps({**config, "protocol": "brook"}))
    with pytest.raises(Exception, match=r"protocol is .brook.; it must be one of"):
        AutoModel.from_pretrained(task)


def test__load__reasoner_of_a_later_version__says_to_update(task: Path) -> None:
    config = json.loads((task / "config.json").read_text())
    config["reasoner_config"]["architecture"] = "quantum"
    (task / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Unknown reasoner architecture 'quantum'.*update transformers-tart"):
        AutoModel.from_pretrained(task)


def test__load__support_made_with_another_backbone__says_so(task: Path, tmp_path: Path) -> None:
    other = save_backbone(tmp_path / "other", "gpt2", n_embd=16, n_head=2)
    with pytest.raises(BackboneMismatchError, match=rf'"{other}" .*other settings in its config: model_type'):
        TartForSequenceClassification.from_pretrained(task, backbone=other)


def test__from_backbone__task_folder_as_reasoner__is_refused(saved: Path) -> None:
    with pytest.raises(CorruptFileError, match="incomplete"):
        TartForSequenceClassification.from_backbone(saved / "base", saved / "task")


def test__pipeline__backbone_without_tokenizer__says_what_to_pass(saved: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(saved / "base").save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"(?s)No tokenizer can be loaded from the backbone.*pass tokenizer="):
        pipeline("tart-classification", model=str(tmp_path / "bare"), examples=make_examples())
