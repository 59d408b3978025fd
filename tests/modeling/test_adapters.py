"""Adapters of peft are backbones like others: folders of adapters and `PeftModel` objects."""

import json
from pathlib import Path

import pytest
import torch
from helpers.builders import build_tokenizer, make_examples, make_texts, save_backbone, score_all
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, pipeline

from transformers_tart import TartForSequenceClassification
from transformers_tart.errors import BackboneMismatchError, BackboneNotFoundError, CorruptFileError


peft = pytest.importorskip("peft", reason="needs peft, which is not installed")
pytestmark = [
    pytest.mark.core,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TEXTS = make_texts(5, seed=1)


def add_lora(backbone: nn.Module, **options: object) -> nn.Module:
    """A `PeftModel` whose LoRA layers change what it reads."""
    torch.manual_seed(0)
    options = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **options}
    return peft.get_peft_model(backbone, peft.LoraConfig(**options)).eval()


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A saved backbone with its tokenizer."""
    return save_backbone(tmp_path / "base")


@pytest.fixture(params=["AutoModel", "AutoModelForCausalLM"])
def adapter(request: pytest.FixtureRequest, base: str, tmp_path: Path) -> str:
    """A folder that holds an adapter and nothing else, trained with a head or without."""
    loader = {"AutoModel": AutoModel, "AutoModelForCausalLM": AutoModelForCausalLM}[request.param]
    add_lora(loader.from_pretrained(base)).save_pretrained(tmp_path / "lora")
    return str(tmp_path / "lora")


@pytest.mark.slow
def test__adapter_folder__composed_saved_and_loaded__keeps_the_adapter(
    adapter: str, base: str, tmp_path: Path
) -> None:
    model = TartForSequenceClassification.from_backbone(adapter)
    classify = pipeline("tart-classification", model=model, examples=make_examples())  # the base model's tokenizer
    plain = pipeline("tart-classification", model=base, examples=make_examples())
    scores = score_all(classify, TEXTS)
    assert not torch.allclose(scores, score_all(plain, TEXTS), atol=1e-3)
    assert torch.equal(
        score_all(pipeline("tart-classification", model=adapter, examples=make_examples()), TEXTS), scores
    )
    classify.save_pretrained(tmp_path / "task")
    assert model.config.base_model_name_or_path == adapter
    assert torch.equal(score_all(pipeline("tart-classification", model=str(tmp_path / "task")), TEXTS), scores)


@pytest.mark.slow
def test__adapter_folder__changed_after_saving__is_refused(adapter: str, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(adapter)
    model.set_support(model.encode_support(make_examples(), build_tokenizer()))
    model.save_pretrained(tmp_path / "task")
    add_lora(AutoModel.from_pretrained(tmp_path / "base"), r=1).save_pretrained(adapter)
    with pytest.raises(BackboneMismatchError, match="weights differ"):
        AutoModel.from_pretrained(tmp_path / "task")


def test__peft_model__composed__same_as_its_folder(base: str, tmp_path: Path) -> None:
    loaded, adapter = add_lora(AutoModel.from_pretrained(base)), str(tmp_path / "lora")
    loaded.save_pretrained(adapter)
    options = {"tokenizer": build_tokenizer(), "examples": make_examples()}
    found, expected = (pipeline("tart-classification", model=m, **options) for m in (loaded, adapter))
    assert torch.equal(score_all(found, TEXTS), score_all(expected, TEXTS))
    model = TartForSequenceClassification.from_backbone(loaded)
    with pytest.raises(BackboneMismatchError, match="adapter was loaded"):
        model.save_pretrained(tmp_path / "task")
    with pytest.raises(ValueError, match="or merge it into the backbone"):
        model.save_pretrained(tmp_path / "task", include_backbone=True)


def test__peft_model__merged__is_saved_inside_the_task(base: str, tmp_path: Path) -> None:
    merged = add_lora(AutoModel.from_pretrained(base)).merge_and_unload()
    classify = pipeline("tart-classification", model=merged, tokenizer=build_tokenizer(), examples=make_examples())
    with pytest.raises(BackboneMismatchError, match="include_backbone=True"):
        classify.save_pretrained(tmp_path / "task")
    classify.save_pretrained(tmp_path / "task", include_backbone=True)
    loaded = pipeline("tart-classification", model=str(tmp_path / "task"))
    assert torch.equal(score_all(loaded, TEXTS), score_all(classify, TEXTS))


@pytest.mark.parametrize("how", ["merged", "disabled"])
def test__peft_model__adapter_switched_after_the_examples__refused(how: str, base: str) -> None:
    model = add_lora(AutoModel.from_pretrained(base))
    classify = pipeline("tart-classification", model=model, tokenizer=build_tokenizer(), examples=make_examples())
    classify(TEXTS)
    if how == "merged":
        model.merge_adapter()
    else:
        model.base_model.disable_adapter_layers()
    with pytest.raises(BackboneMismatchError, match="other adapters are loaded or active"):
        classify(TEXTS)


def test__peft_model__prompt_tuning__refused(base: str) -> None:
    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="PROMPT_TUNING adds to the input of a model"):
        TartForSequenceClassification.from_backbone(peft.get_peft_model(AutoModel.from_pretrained(base), config))


def test__adapter_folder__without_peft__says_what_to_do(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(BackboneNotFoundError, match=r"(?s)adapter of peft.*pip install -U peft.*merge_and_unload"):
        TartForSequenceClassification.from_backbone(adapter)


@pytest.mark.parametrize("name", [None, 3, ""])
def test__adapter_folder__names_no_base__clear_error(name: object, adapter: str) -> None:
    path = Path(adapter, "adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": name}))
    with pytest.raises(CorruptFileError, match="names the base model"):
        TartForSequenceClassification.from_backbone(adapter)
