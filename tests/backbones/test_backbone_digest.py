"""A task recognizes the backbone and the options with which its support set was made."""

import copy
import json
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from helpers.builders import (
    BACKBONES,
    build_backbone,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    save_backbone,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel

from transformers_tart import SupportSet, TartForSequenceClassification
from transformers_tart.backbones.digest import SAMPLES, BackboneDigest
from transformers_tart.errors import BackboneMismatchError, CorruptFileError
from transformers_tart.inputs.views import View


pytestmark = pytest.mark.core


DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A saved backbone with its tokenizer."""
    return save_backbone(tmp_path / "base")


@pytest.fixture
def task(base: str, tmp_path: Path) -> Path:
    """A saved task that refers to the backbone."""
    model = TartForSequenceClassification.from_backbone(base)
    make_pipeline(model).save_pretrained(tmp_path / "task")
    return tmp_path / "task"


def change(backbone: PreTrainedModel) -> PreTrainedModel:
    """Change one weight by a little, as one step of training does."""
    with torch.no_grad():
        backbone.get_input_embeddings().weight[5:].add_(0.01)
    return backbone


@pytest.mark.parametrize("stored", DTYPES, ids=str)
@pytest.mark.parametrize("loaded", DTYPES, ids=str)
def test__digest__same_weights_in_another_dtype__no_difference(
    base: str, stored: torch.dtype, loaded: torch.dtype
) -> None:
    one, two = (BackboneDigest.of(AutoModel.from_pretrained(base, dtype=dtype)) for dtype in (stored, loaded))
    assert one.differences(two) == []
    changed = change(AutoModel.from_pretrained(base, dtype=loaded))
    assert "1 of 20 weights differ" in one.differences(BackboneDigest.of(changed))[0]


def test__digest__one_percent_of_a_large_weight__is_found() -> None:
    backbone = build_backbone("llama", intermediate_size=1024)
    before = BackboneDigest.of(backbone)
    weight = backbone.layers[1].mlp.up_proj.weight.data
    assert weight.numel() > 10 * SAMPLES
    chosen = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(0))[: weight.numel() // 100]
    weight.view(-1)[chosen] += 1e-6
    assert before.differences(BackboneDigest.of(backbone)) == [
        "1 of 20 weights differ, such as layers.1.mlp.up_proj.weight"
    ]


@pytest.mark.parametrize("where", ["cpu", "disk"])
def test__digest__offloaded_backbone__is_that_of_the_whole(where: str, tmp_path: Path) -> None:
    backbone = build_backbone("llama")
    before = BackboneDigest.of(backbone)
    cpu = torch.device("cpu")
    if where == "cpu":
        cpu_offload(backbone, execution_device=cpu)
    else:
        disk_offload(backbone, str(tmp_path), execution_device=cpu)
    after = BackboneDigest.of(backbone)
    assert (after.unchecked, before.differences(after)) == (0, [])


def test__digest__sharded_backbone__is_that_of_the_whole(base: str, tmp_path: Path) -> None:
    AutoModel.from_pretrained(base).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    one, two = (BackboneDigest.of(AutoModel.from_pretrained(folder)) for folder in (base, tmp_path / "shards"))
    assert one.differences(two) == []


@pytest.mark.slow
@pytest.mark.parametrize("model_type", BACKBONES)
def test__save__changed_weights__refused_with_the_ways_out(model_type: str, tmp_path: Path) -> None:
    name = save_backbone(tmp_path / "base", model_type)
    for backbone in (name, change(AutoModel.from_pretrained(name))):
        model = TartForSequenceClassification.from_backbone(backbone)
        if backbone is name:
            change(model.backbone)
        model.set_support(model.encode_support(make_examples(), build_tokenizer()))
        with pytest.raises(BackboneMismatchError, match=r"include_backbone=True, or save the backbone first"):
            model.save_pretrained(tmp_path / "task")
        assert not (tmp_path / "task" / "config.json").exists()
        model.save_pretrained(tmp_path / "task", include_backbone=True)
        batch = {"input_ids": torch.arange(4, 12)[None]}
        loaded = AutoModel.from_pretrained(tmp_path / "task")
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
        (tmp_path / "task" / "config.json").unlink()


def test__save__loaded_model_with_a_name__is_compared_with_that(base: str, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(AutoModel.from_pretrained(base))
    model.save_pretrained(tmp_path / "task")
    Path(base, "model.safetensors").unlink()
    again = TartForSequenceClassification.from_backbone(model.backbone)
    with pytest.raises(ValueError, match=r"(?s)cannot be loaded to compare their weights.*include_backbone=True"):
        again.save_pretrained(tmp_path / "task")


def test__load__files_of_the_backbone_changed__names_both(base: str, task: Path) -> None:
    change(AutoModel.from_pretrained(base)).save_pretrained(base)
    with pytest.raises(BackboneMismatchError, match=rf'embedded by the backbone "{base}" \(digest .*now has "{base}"'):
        AutoModel.from_pretrained(task)


def test__load__settings_of_the_backbone_changed__names_them(base: str, task: Path) -> None:
    config = json.loads(Path(base, "config.json").read_text())
    Path(base, "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1, "hidden_act": "gelu"}))
    with pytest.raises(BackboneMismatchError, match=r"other settings in its config: hidden_act, rms_norm_eps"):
        AutoModel.from_pretrained(task)


@pytest.mark.parametrize(
    ("field", "value"), [("pooling", "max"), ("normalize", True), ("layers", -1), ("max_length", 3)]
)
def test__load__edited_embedding_options__refused_by_name(field: str, value: object, task: Path) -> None:
    config = json.loads((task / "config.json").read_text())
    edited = config if field == "max_length" else config["views"][0]
    edited[field] = value
    (task / "config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptFileError, match=rf"config.json and support.safetensors of {task}.*{field}"):
        AutoModel.from_pretrained(task)


@pytest.mark.slow
def test__load__support_of_another_task__refused(task: Path, base: str, tmp_path: Path) -> None:
    other = TartForSequenceClassification.from_backbone(base, pooling="last")
    make_pipeline(other).save_pretrained(tmp_path / "other")
    (task / "support.safetensors").write_bytes((tmp_path / "other" / "support.safetensors").read_bytes())
    with pytest.raises(CorruptFileError, match="of two tasks, or one was edited.*views=.'last'"):
        AutoModel.from_pretrained(task)


@pytest.mark.slow
def test__load__copy_of_the_backbone__is_taken_and_referred_to(base: str, task: Path, tmp_path: Path) -> None:
    Path(base).rename(tmp_path / "moved")
    model = AutoModel.from_pretrained(task, backbone=tmp_path / "moved")
    model.save_pretrained(tmp_path / "again")
    assert AutoModel.from_pretrained(tmp_path / "again").config.base_model_name_or_path == str(tmp_path / "moved")
    with pytest.raises(BackboneMismatchError):
        AutoModel.from_pretrained(task, backbone=build_backbone("llama", seed=1))


def test__load__task_without_a_digest__warns_once_and_stores_one(
    task: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    path = task / "support.safetensors"
    support = SupportSet.load(path)
    SupportSet(support.embeddings, support.labels, support.label_names).save(path)
    model = AutoModel.from_pretrained(task)
    assert "saved by version 0.1, without a digest of its backbone" in all_logs.text
    model.save_pretrained(task)
    assert SupportSet.load(path).digest.differences(support.digest) == []


def test__load__damaged_digest__clear_error(task: Path) -> None:
    path = task / "support.safetensors"
    tensors = load_file(path)
    tensors["backbone.float32"] = tensors["backbone.float32"][:-1].clone()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(CorruptFileError, match="the digest of the backbone has"):
        AutoModel.from_pretrained(task)


@pytest.mark.parametrize("protocol", ["stream", "vanilla"])
def test__classify__weights_changed_after_the_examples__refused(protocol: str) -> None:
    classify = make_pipeline(compose(protocol=protocol))
    before = classify("w1 w2 w3")
    saved = copy.deepcopy(classify.model.backbone.state_dict())
    change(classify.model.backbone)
    with pytest.raises(BackboneMismatchError, match=r"(?s)1 of 20 weights differ.*encode the examples again"):
        classify("w1 w2 w3")
    classify.model.backbone.load_state_dict(saved)
    assert classify("w1 w2 w3") == before


def test__forward__support_of_another_model__refused() -> None:
    model = compose(pooling="mean")
    support = model.encode_support(make_examples(), build_tokenizer())
    other = TartForSequenceClassification.from_backbone(build_backbone("llama", seed=1), pooling="mean")
    with pytest.raises(BackboneMismatchError, match="15 of 20 weights differ"):
        other(torch.arange(4, 9)[None], support=support)
    model.config.views = [View(pooling="last", layers="all")]
    with pytest.raises(BackboneMismatchError, match="pooling='mean', the config of the model has pooling='last'"):
        model(torch.arange(4, 9)[None], support=support)


def test__load__support_in_another_dtype__is_the_same_backbone(task: Path) -> None:
    assert AutoModel.from_pretrained(task, dtype=torch.bfloat16).support is not None
