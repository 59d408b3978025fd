"""Placement of the backbone by accelerate, and backbones of lower precision."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.builders import (
    BACKBONES,
    VOCABULARY_SIZE,
    build_tokenizer,
    compose,
    make_examples,
    make_pipeline,
    make_texts,
    save_backbone,
    score_all,
    shared_reasoner,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from transformers_tart import TartForSequenceClassification
from transformers_tart.embeddings import encode_texts


pytestmark = pytest.mark.core


TEXTS = make_texts(7, seed=6)
SPLIT = {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "norm": "cpu", "rotary_emb": "cpu"}
EMPTY_OF_DISK = {"cpu": 30_000}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved backbone with its tokenizer."""
    return save_backbone(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def expected(base: str) -> Tensor:
    """Logits without any placement."""
    return predict(TartForSequenceClassification.from_backbone(base, shared_reasoner()))


def get_arguments(name: str, folder: Path) -> dict:
    return {
        "cpu": {"device_map": {"": "cpu"}},
        "auto": {"device_map": "auto", "max_memory": {"cpu": "1GiB"}},
        "split": {"device_map": SPLIT, "offload_folder": str(folder / "offload")},
        "disk": {"device_map": "auto", "max_memory": EMPTY_OF_DISK, "offload_folder": str(folder / "offload")},
    }[name]


def predict(model: TartForSequenceClassification) -> Tensor:
    if model.support is None:
        model.set_support(model.encode_support(make_examples(), build_tokenizer()))
    input_ids = torch.randint(4, VOCABULARY_SIZE, (5, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_ids).logits


@pytest.fixture(params=["cpu", "auto", "split", "disk"])
def placement(request: pytest.FixtureRequest, base: str, tmp_path: Path) -> str:
    """Each placement in turn, of those that accelerate knows: before version 1.15 it refuses a whole model on disk."""
    try:
        AutoModel.from_pretrained(base, **get_arguments(request.param, tmp_path))
    except ValueError as err:
        if "disk" not in str(err):
            raise
        pytest.skip(str(err))
    return request.param


def test__from_backbone__placement__same_logits(placement: str, base: str, expected: Tensor, tmp_path: Path) -> None:
    arguments = get_arguments(placement, tmp_path)
    model = TartForSequenceClassification.from_backbone(base, shared_reasoner(), **arguments)
    if placement in ("split", "disk"):
        assert "disk" in model.hf_device_map.values()
        assert any(parameter.device.type == "meta" for parameter in model.backbone.parameters())
    torch.testing.assert_close(predict(model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
@pytest.mark.parametrize("include_backbone", [False, True])
def test__save_and_load__placement__same_logits(
    placement: str, include_backbone: bool, base: str, expected: Tensor, tmp_path: Path
) -> None:
    arguments = get_arguments(placement, tmp_path)
    model = TartForSequenceClassification.from_backbone(base, shared_reasoner(), **arguments)
    predict(model)
    model.save_pretrained(tmp_path / "task", include_backbone=include_backbone)
    keys = set(load_file(tmp_path / "task" / "model.safetensors"))
    assert keys == {f"reasoner.{name}" for name in model.reasoner.state_dict()}
    for auto_class in (AutoModel, AutoModelForSequenceClassification):
        loaded = auto_class.from_pretrained(tmp_path / "task", **arguments)
        torch.testing.assert_close(predict(loaded), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(predict(AutoModel.from_pretrained(tmp_path / "task")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("placement", ["cpu", "auto", "split"])
def test__pipeline__placement__same_answers(placement: str, base: str, tmp_path: Path) -> None:
    arguments = get_arguments(placement, tmp_path)
    device_map, other = arguments.pop("device_map"), arguments
    classify = pipeline(
        "tart-classification", model=base, examples=make_examples(), device_map=device_map, model_kwargs=other
    )
    torch.testing.assert_close(score_all(classify, TEXTS), score_all(make_pipeline(), TEXTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", BACKBONES)
def test__bfloat16__every_backbone__reasoner_in_float32_and_close(model_type: str) -> None:
    model = compose(model_type)
    expected = score_all(make_pipeline(model, examples=make_examples(24)), TEXTS)
    model.backbone.to(torch.bfloat16)
    found = score_all(make_pipeline(model, examples=make_examples(24)), TEXTS)
    assert {parameter.dtype for parameter in model.reasoner.parameters()} == {torch.float32}
    # the default reads single tokens, whose rounding no mean evens out
    torch.testing.assert_close(found, expected, atol=4e-2, rtol=0)
    assert expected.std(0).max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test__load__dtype__is_the_backbone_s_alone(dtype: object, base: str, expected: Tensor, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(base, shared_reasoner(), dtype=dtype)
    probabilities = predict(model).softmax(-1)
    model.save_pretrained(tmp_path / "task")
    loaded = AutoModel.from_pretrained(tmp_path / "task", dtype=dtype)
    for each in (model, loaded):
        assert {parameter.dtype for parameter in each.backbone.parameters()} == {torch.bfloat16}
        assert {parameter.dtype for parameter in each.reasoner.parameters()} == {torch.float32}
    assert torch.equal(predict(loaded).softmax(-1), probabilities)
    torch.testing.assert_close(probabilities, expected.softmax(-1), atol=2e-2, rtol=0)


def test__load__dtype_auto__is_that_of_the_saved_backbone(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "base")
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    model = TartForSequenceClassification.from_backbone(folder, shared_reasoner(), dtype="auto")
    assert (model.backbone.dtype, model.reasoner.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test__to__lower_precision_for_all__still_answers(dtype: torch.dtype) -> None:
    model = compose()
    expected = predict(model).softmax(-1)
    model.to(dtype)
    model.set_support(model.support)
    torch.testing.assert_close(predict(model).float().softmax(-1), expected, atol=5e-2, rtol=0)


def test__accelerator__prepared_and_unwrapped__same_bytes(base: str, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(base)
    model.save_pretrained(tmp_path / "before")
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare(model)
    accelerator.unwrap_model(prepared).save_pretrained(
        tmp_path / "after",
        is_main_process=accelerator.is_main_process,
        state_dict=accelerator.get_state_dict(prepared),
    )
    names = ("model.safetensors", "config.json")
    assert all((tmp_path / "before" / n).read_bytes() == (tmp_path / "after" / n).read_bytes() for n in names)


ENCODE = """
import sys, torch
from accelerate import Accelerator
from transformers import AutoModel, AutoTokenizer
from transformers_tart.embeddings import encode_texts

base, output = sys.argv[1:]
backbone, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
accelerator = Accelerator(cpu=True)
for count in (1, 7):
    texts = [f"w{i} w{2 * i}" for i in range(1, count + 1)]
    found = encode_texts(backbone, tokenizer, texts, layers="all", accelerator=accelerator)
    torch.save(found, f"{output}/{count}.{accelerator.process_index}.pt")
accelerator.end_training()
"""


@pytest.mark.slow
def test__encode_texts__two_processes__each_gets_all_rows(base: str, tmp_path: Path) -> None:
    (tmp_path / "encode.py").write_text(ENCODE)
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    quiet = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [sys.executable, *launch, *quiet, str(tmp_path / "encode.py"), base, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    backbone, tokenizer = AutoModel.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    for count in (1, 7):
        texts = [f"w{i} w{2 * i}" for i in range(1, count + 1)]
        expected = encode_texts(backbone, tokenizer, texts, layers="all")
        for process in (0, 1):
            found = torch.load(tmp_path / f"{count}.{process}.pt", weights_only=True)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
