"""The dtype of a backbone where the user leaves it open."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer, make_examples
from transformers import (
    BitsAndBytesConfig,
    CLIPConfig,
    EfficientNetConfig,
    LlamaConfig,
    LlamaForCausalLM,
    SwinConfig,
    WhisperConfig,
    pipeline,
)

from transformers_tart import SupportSet, TartConfig, TartForSequenceClassification
from transformers_tart.backbones import dtype
from transformers_tart.backbones.dtype import choose_dtype, with_dtype
from transformers_tart.commands.common import load_config, load_pipeline
from transformers_tart.commands.inputs import InputTable
from transformers_tart.commands.output import FILES, OPTIONS, fingerprint_of
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.inputs.modality import TEXT


pytestmark = pytest.mark.core
CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["units", "no_units"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """The dtype for a CPU that has bfloat16 units, or has none."""
    monkeypatch.setattr(dtype, "BFLOAT16_UNITS", ("avx512_bf16",))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": request.param, "architecture": "x86"})
    return torch.bfloat16 if request.param else torch.float32


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A language model that is stored in float16."""
    folder = tmp_path / "base"
    torch.manual_seed(0)
    LlamaForCausalLM(build_backbone("llama").config).to(torch.float16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def load(name: Path | str, **options: Any) -> Any:
    return pipeline("tart-classification", model=str(name), **options)


def fit(base: str, folder: Path, **options: Any) -> str:
    load(base, examples=make_examples(), **options).save_pretrained(folder)
    return str(folder)


def arguments(model: str, dtype: str = "auto") -> argparse.Namespace:
    names = ("revision", "token", "device", "device_map", *OPTIONS, *FILES)
    return argparse.Namespace(**{**dict.fromkeys(names), "model": model, "dtype": dtype})


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, torch.float32),
        ({"architecture": "arm64", "neon": True, "bf16": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test__choose__cpu__bfloat16_with_its_units_alone(
    capabilities: dict, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtype, "BFLOAT16_UNITS", ("amx_bf16", "avx512_bf16"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype(CPU, LlamaConfig()) == expected


@pytest.mark.parametrize(("name", "expected"), [("cuda:1", torch.bfloat16), ("xpu", "auto"), ("mps", "auto")])
def test__choose__accelerator__bfloat16_where_supported(
    name: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated: not emulated)
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda emulated: emulated)
    assert choose_dtype(torch.device(name), LlamaConfig()) == expected
    assert choose_dtype(torch.device(name), EfficientNetConfig()) == "auto"


@pytest.mark.parametrize(
    ("device", "device_map", "expected"),
    [
        (None, None, "cuda"),
        (0, None, "cuda"),
        (-1, None, "cpu"),
        ("cpu", None, "cpu"),
        (CPU, None, "cpu"),
        ("cuda:1", None, "cuda"),
        (None, "auto", "cuda"),
        (None, "cpu", "cpu"),
        (None, {"": CPU}, "cpu"),
        (None, {"embed": "cpu", "layers": 1}, "cuda"),
        (None, {"embed": "disk", "layers": "cpu"}, "cpu"),
    ],
)
def test__choose__device_and_device_map__that_of_most_layers(
    device: Any, device_map: Any, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: accelerator)
    monkeypatch.setattr(dtype, "choose_dtype", lambda device, config: device.type)
    assert with_dtype({"device_map": device_map}, LlamaConfig(), device)["dtype"] == expected


@pytest.mark.parametrize("kind", [CLIPConfig, LlamaConfig, SwinConfig, WhisperConfig])
def test__choose__attention__bfloat16_on_a_cpu_with_units(kind: Any, fast: torch.dtype) -> None:
    assert choose_dtype(CPU, kind()) == fast
    assert choose_dtype(CPU, EfficientNetConfig()) == torch.float32


@pytest.mark.parametrize("given", [torch.float16, "float16", {"": torch.float32}])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test__choose__given_dtype__kept(given: object, name: str) -> None:
    assert with_dtype({name: given}, LlamaConfig()) == {name: given}


def test__choose__quantized__as_in_transformers() -> None:
    quantized = BitsAndBytesConfig()
    assert with_dtype({"quantization_config": quantized}, LlamaConfig()) == {"quantization_config": quantized}
    config = LlamaConfig(quantization_config={"quant_method": "gptq", "bits": 4})
    assert with_dtype({"dtype": "auto"}, config) == {"dtype": "auto"}
    assert with_dtype({"dtype": "auto"}, TartConfig(text_config=config)) == {"dtype": "auto"}


def test__pipeline__no_dtype__chosen_for_the_cpu(fast: torch.dtype, base: str) -> None:
    classify = load(base, examples=make_examples())
    assert (classify.model.backbone.dtype, classify.model.reasoner.dtype) == (fast, torch.float32)
    assert load(base, dtype="auto").model.backbone.dtype == fast
    assert load(base, dtype=torch.float16).model.backbone.dtype == torch.float16
    assert load(base, dtype="float32").model.backbone.dtype == torch.float32


def test__command__no_dtype__chosen_for_the_cpu(fast: torch.dtype, base: str) -> None:
    for name, expected in (("auto", fast), ("float16", torch.float16)):
        args = arguments(base, name)
        assert load_pipeline(args, load_config(args)).model.backbone.dtype == expected


def test__fingerprint__no_dtype__that_of_the_cpu(fast: torch.dtype, base: str, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\nw1\n")
    args = argparse.Namespace(**vars(arguments(base)), examples=None)
    table = InputTable.of(args, str(tmp_path / "new.csv"), TEXT)
    found = fingerprint_of(args, load_config(args), table)["options"]
    others = dict.fromkeys(OPTIONS)
    assert found == {**others, "dtype": str(fast).removeprefix("torch.")}


def test__evaluation__no_dtype__chosen_for_the_cpu(fast: torch.dtype, base: str) -> None:
    models = Models(base)
    assert models.model("text").backbone.dtype == models.language_model.dtype == fast
    assert models.loading_dtype == str(fast).removeprefix("torch.")
    assert Models(base, dtype="float16").model("text").backbone.dtype == torch.float16


def test__from_backbone__no_dtype__that_of_the_weights(fast: torch.dtype, base: str, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(base)
    assert model.backbone.dtype == TartForSequenceClassification.from_backbone(base, dtype="auto").backbone.dtype
    assert model.backbone.dtype == torch.float16
    model.save_pretrained(tmp_path / "composed")  # without a support set, which would have a dtype
    assert TartForSequenceClassification.from_pretrained(tmp_path / "composed").backbone.dtype == torch.float16
    assert load(tmp_path / "composed", tokenizer=build_tokenizer()).model.backbone.dtype == fast


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test__task__no_dtype__that_of_its_support_set(stored: torch.dtype, base: str, tmp_path: Path) -> None:
    task = fit(base, tmp_path / "task", dtype=stored)
    name = str(stored).removeprefix("torch.")
    assert json.loads((tmp_path / "task" / "config.json").read_text())["dtype"] == name
    assert SupportSet.load(tmp_path / "task" / "support.safetensors").digest.dtype == name
    assert f"| embedded in | {name} |" in (tmp_path / "task" / "README.md").read_text()
    assert load(task, backbone=base).model.backbone.dtype == stored
    for given in ({}, {"dtype": "auto"}):
        assert TartForSequenceClassification.from_pretrained(task, **given).backbone.dtype == stored
    args = arguments(task)
    assert load_pipeline(args, load_config(args)).model.backbone.dtype == stored


def test__task__dtype__overrides_that_of_its_support_set(base: str, tmp_path: Path) -> None:
    task = fit(base, tmp_path / "task", dtype=torch.bfloat16)
    classify = load(task, dtype=torch.float32)
    assert classify.model.backbone.dtype == torch.float32
    assert classify("w1")["score"] == pytest.approx(load(task)("w1")["score"], abs=2e-2)
    classify.save_pretrained(tmp_path / "again")  # still with the embeddings in bfloat16
    assert load(tmp_path / "again").model.backbone.dtype == torch.bfloat16


def test__task__backbone_converted_after_its_support_set__dtype_of_the_support_set(base: str, tmp_path: Path) -> None:
    classify = load(base, dtype=torch.float32, examples=make_examples())
    classify.model.backbone.to(torch.bfloat16)
    classify.save_pretrained(tmp_path / "task")
    assert load(tmp_path / "task").model.backbone.dtype == torch.float32


def test__float16__hidden_states_beyond_its_range__error_unless_left_open(tmp_path: Path) -> None:
    backbone = build_backbone("llama")
    with torch.no_grad():
        for layer in backbone.layers:
            layer.mlp.up_proj.weight.mul_(1e4)
            layer.mlp.down_proj.weight.mul_(1e4)
    backbone.to(torch.float16).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert load(tmp_path, examples=make_examples())("w1")["label"] in ("ham", "spam")
    with pytest.raises(ValueError, match="overflows its dtype. Load it with dtype=torch.float32 or torch.bfloat16"):
        load(tmp_path, dtype=torch.float16, examples=make_examples())
