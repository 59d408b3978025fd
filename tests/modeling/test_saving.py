"""What is saved, and that loading it gives the same answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import (
    BACKBONES,
    VOCABULARY_SIZE,
    build_backbone,
    build_reasoner,
    build_tokenizer,
    compose,
    make_examples,
    read_files,
    save_backbone,
    shared_reasoner,
)
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig

from transformers_tart import SupportSet, TartConfig, TartForSequenceClassification
from transformers_tart.backbones.digest import BackboneDigest


pytestmark = pytest.mark.core


FIVE_MEGABYTES = 5_000_000
EVERY_BACKBONE = pytest.mark.parametrize("model_type", BACKBONES)


def fit(base: str, reasoner: str = "kernel", **options: object) -> TartForSequenceClassification:
    given = shared_reasoner() if reasoner == "kernel" else build_reasoner(reasoner)
    model = TartForSequenceClassification.from_backbone(base, given, **options)
    model.set_support(model.encode_support(make_examples(), build_tokenizer()))
    return model


def predict(model: TartForSequenceClassification) -> Tensor:
    input_ids = torch.randint(4, VOCABULARY_SIZE, (6, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids).logits


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A saved backbone with its tokenizer."""
    return save_backbone(tmp_path / "base")


@pytest.mark.slow
@EVERY_BACKBONE
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
def test__save_and_load__every_backbone__same_logits(model_type: str, auto_class: type, tmp_path: Path) -> None:
    model = fit(save_backbone(tmp_path / "base", model_type))
    model.save_pretrained(tmp_path / "task")
    loaded = auto_class.from_pretrained(tmp_path / "task")
    assert type(loaded) is TartForSequenceClassification
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.backbone.parameters())
    assert torch.equal(predict(loaded), predict(model))


@pytest.mark.slow
@EVERY_BACKBONE
def test__save_and_load__with_the_backbone_and_base_deleted__same_logits(model_type: str, tmp_path: Path) -> None:
    model = fit(save_backbone(tmp_path / "base", model_type))
    model.save_pretrained(tmp_path / "task", include_backbone=True)
    shutil.rmtree(tmp_path / "base")
    assert torch.equal(predict(AutoModel.from_pretrained(tmp_path / "task")), predict(model))
    assert not any(str(tmp_path).encode() in content for content in read_files(tmp_path / "task").values())


@pytest.mark.parametrize("include_backbone", [False, True])
@pytest.mark.parametrize("reasoner", ["kernel", "gpt2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test__save_and_load__dtype__same_logits(
    include_backbone: bool, reasoner: str, dtype: torch.dtype, base: str, tmp_path: Path
) -> None:
    model = fit(base, reasoner, dtype=dtype)
    model.save_pretrained(tmp_path / "task", include_backbone=include_backbone)
    loaded = AutoModel.from_pretrained(tmp_path / "task", dtype=dtype)
    assert (loaded.backbone.dtype, loaded.reasoner.dtype) == (dtype, torch.float32)
    assert torch.equal(predict(loaded), predict(model))


def test__save_and_load__rotary_backbone__buffers_survive(base: str, tmp_path: Path) -> None:
    model = fit(base)
    model.save_pretrained(tmp_path / "task")
    buffers = dict(AutoModel.from_pretrained(tmp_path / "task").backbone.named_buffers())
    expected = dict(model.backbone.named_buffers())
    assert "rotary_emb.inv_freq" in expected
    assert buffers.keys() == expected.keys()
    assert all(torch.equal(buffers[name], expected[name]) for name in expected)


@EVERY_BACKBONE
def test__loading_info__every_backbone__nothing_missing(model_type: str, tmp_path: Path) -> None:
    fit(save_backbone(tmp_path / "base", model_type)).save_pretrained(tmp_path / "task")
    model, info = AutoModel.from_pretrained(tmp_path / "task", output_loading_info=True)
    assert isinstance(model, TartForSequenceClassification)
    assert {name: list(found) for name, found in info.items() if found} == {}


@pytest.mark.parametrize("include_backbone", [False, True])
def test__saved_weights__keys__the_reasoner_s_alone_and_small(
    include_backbone: bool, base: str, tmp_path: Path
) -> None:
    model = fit(base)
    model.save_pretrained(tmp_path / "task", include_backbone=include_backbone)
    with safe_open(tmp_path / "task" / "model.safetensors", framework="pt") as file:
        keys = set(file.keys())
    assert keys == {f"reasoner.{name}" for name in model.reasoner.state_dict()}
    assert (tmp_path / "task" / "model.safetensors").stat().st_size < FIVE_MEGABYTES


def test__saved_folder__files__no_weights_but_safetensors(base: str, tmp_path: Path) -> None:
    fit(base).save_pretrained(tmp_path / "task", include_backbone=True)
    assert set(read_files(tmp_path / "task")) == {
        "README.md",
        "backbone/config.json",
        "backbone/model.safetensors",
        "config.json",
        "model.safetensors",
        "support.safetensors",
        "transformers_tart_classes.py",
    }


@pytest.mark.slow
@pytest.mark.parametrize("include_backbone", [False, True])
def test__save__twice__same_bytes(include_backbone: bool, base: str, tmp_path: Path) -> None:
    model = fit(base)
    for _ in range(2):
        model.save_pretrained(tmp_path / "a", include_backbone=include_backbone)
    model.save_pretrained(tmp_path / "b", include_backbone=include_backbone)
    AutoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "c", include_backbone=include_backbone)
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b") == read_files(tmp_path / "c")


def test__save_and_load__packed_support__same_logits_and_bytes(base: str, tmp_path: Path) -> None:
    model = fit(base, layers=-1, pooling="mean")
    assert model.support is not None
    assert model.support.packed is not None
    model.save_pretrained(tmp_path / "a")
    loaded = AutoModel.from_pretrained(tmp_path / "a")
    assert torch.equal(predict(loaded), predict(model))
    loaded.save_pretrained(tmp_path / "b")
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")
    assert load_file(tmp_path / "a" / "support.safetensors")["packed.values"].dtype == torch.float16
    assert "| 12 examples of 0.1 kB in float16, 0.9 kB in all |" in (tmp_path / "a" / "README.md").read_text()


def test__fit__same_seed__same_bytes(base: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fit(base, "gpt2").save_pretrained(tmp_path / name)
    assert read_files(tmp_path / "a") == read_files(tmp_path / "b")


def test__save__state_dict_given__written_and_left_alone(base: str, tmp_path: Path) -> None:
    model = fit(base)
    state_dict = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    names = list(state_dict)
    model.save_pretrained(tmp_path / "task", state_dict=state_dict)
    assert list(state_dict) == names
    saved = load_file(tmp_path / "task" / "model.safetensors")
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in saved.items())


@pytest.mark.parametrize("include_backbone", [False, True])
def test__save__live_config__is_left_as_it_is(include_backbone: bool, base: str, tmp_path: Path) -> None:
    model = fit(base)
    live, before = model.config, model.config.to_dict()
    model.save_pretrained(tmp_path / "task", include_backbone=include_backbone)
    assert model.config is live
    assert model.config.to_dict() == before


@pytest.mark.parametrize("written", [(ModelCard, "save"), (PreTrainedConfig, "to_json_file"), (SupportSet, "save")])
def test__save__while_it_writes__live_config_as_it_was(
    written: tuple[type, str], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen, original = fit(base), [], getattr(*written)
    live, before = model.config, model.config.to_dict()

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append(model.config is live and live.to_dict() == before)
        return original(*args, **kwargs)

    monkeypatch.setattr(*written, look)
    model.save_pretrained(tmp_path / "task", include_backbone=True)
    assert seen
    assert all(seen)


def test__load__task_with_support__digest_of_the_backbone_taken_once(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(base).save_pretrained(tmp_path / "task")
    taken, original = [], BackboneDigest.of
    monkeypatch.setattr(BackboneDigest, "of", lambda backbone: taken.append(1) or original(backbone))
    model = AutoModel.from_pretrained(tmp_path / "task")
    assert model.support is not None
    assert len(taken) == 1


def test__saved_config__fields__say_what_is_there(base: str, tmp_path: Path) -> None:
    model = fit(base, pooling="last", max_length=9)
    model.save_pretrained(tmp_path / "task")
    config = AutoConfig.from_pretrained(tmp_path / "task")
    assert isinstance(config, TartConfig)
    assert (config.base_model_name_or_path, config.has_support, config.include_backbone) == (base, True, False)
    (view,) = config.views
    assert (view.pooling, config.max_length, config.id2label) == ("last", 9, {0: "ham", 1: "spam"})
    assert config.architectures == ["TartForSequenceClassification"]
    model.save_pretrained(tmp_path / "task", include_backbone=True)
    config = json.loads((tmp_path / "task" / "config.json").read_text())
    assert (config["base_model_name_or_path"], config["include_backbone"]) == (None, True)


def test__saved_config__places_of_the_parts__are_not_in_it(base: str, tmp_path: Path) -> None:
    build_reasoner().save_pretrained(tmp_path / "reasoner")
    model = TartForSequenceClassification.from_backbone(base, tmp_path / "reasoner")
    model.save_pretrained(tmp_path / "task", include_backbone=True)
    assert not any(str(tmp_path).encode() in content for content in read_files(tmp_path / "task").values())


def test__save__no_support__none_is_loaded_and_an_old_one_goes(base: str, tmp_path: Path) -> None:
    model = fit(base)
    model.save_pretrained(tmp_path / "task")
    model.set_support(None)
    model.save_pretrained(tmp_path / "task")
    assert "support.safetensors" not in read_files(tmp_path / "task")
    assert AutoModel.from_pretrained(tmp_path / "task").support is None


def test__save__backbone_without_a_name__says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass include_backbone=True, or save the backbone first"):
        compose().save_pretrained(tmp_path / "task")
    assert not (tmp_path / "task").exists()
    compose().save_pretrained(tmp_path / "task", include_backbone=True)
    assert torch.isfinite(predict(fit_loaded(tmp_path / "task"))).all()


def fit_loaded(folder: Path) -> TartForSequenceClassification:
    model = AutoModel.from_pretrained(folder)
    model.set_support(model.encode_support(make_examples(), build_tokenizer()))
    return model


def test__save__not_the_main_process__writes_nothing(base: str, tmp_path: Path) -> None:
    fit(base).save_pretrained(tmp_path / "task", is_main_process=False)
    assert read_files(tmp_path / "task") == {}


def test__save__card_of_the_user__is_kept(base: str, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "README.md").write_text("mine")
    fit(base).save_pretrained(tmp_path / "task")
    assert (tmp_path / "task" / "README.md").read_text() == "mine"


@pytest.mark.parametrize("given", ["folder", "model", "model_with_head"])
def test__from_pretrained__backbone_given__used_instead(given: str, base: str, tmp_path: Path) -> None:
    model = fit(base)
    model.save_pretrained(tmp_path / "task")
    shutil.move(base, tmp_path / "moved")
    backbone = tmp_path / "moved" if given == "folder" else build_backbone("llama")
    if given == "model_with_head":
        from transformers import LlamaForCausalLM

        backbone = LlamaForCausalLM.from_pretrained(tmp_path / "moved")
    loaded = TartForSequenceClassification.from_pretrained(tmp_path / "task", backbone=backbone)
    assert torch.equal(predict(loaded), predict(model))


def test__from_pretrained__embedding_field_given__replaces_the_saved_one(base: str, tmp_path: Path) -> None:
    TartForSequenceClassification.from_backbone(base).save_pretrained(tmp_path / "task")
    loaded = AutoModel.from_pretrained(tmp_path / "task", layers=-1, pooling="last")
    (view,) = loaded.config.views
    assert (view.layers, view.pooling) == (-1, "last")


def test__from_pretrained__layer_added_to_the_given_backbone__survives(base: str, tmp_path: Path) -> None:
    TartForSequenceClassification.from_backbone(base).save_pretrained(tmp_path / "task")  # without a support set
    backbone = build_backbone("llama")
    projection = backbone.layers[0].self_attn.q_proj
    projection.up = torch.nn.Linear(2, 32, bias=False)
    weight = projection.up.weight.clone()
    loaded = TartForSequenceClassification.from_pretrained(tmp_path / "task", backbone=backbone)
    assert torch.equal(loaded.backbone.layers[0].self_attn.q_proj.up.weight, weight)
