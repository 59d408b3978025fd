"""Composed classifiers of images and audio: the backbone stays as it is, and what is saved comes back."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.builders import build_reasoner
from helpers.media_backbones import (
    FAMILIES,
    NAMES,
    build_media,
    class_of,
    compose_media,
    make_images,
    make_media,
    make_media_examples,
    make_sounds,
    process,
    processor_of,
    save_media,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from transformers_tart import (
    SupportSet,
    TartAudioConfig,
    TartForAudioClassification,
    TartForImageClassification,
    TartImageConfig,
)
from transformers_tart.embeddings.views import PRESETS, VIEWS
from transformers_tart.modeling_tart import TartMediaModel


pytestmark = pytest.mark.core


CONFIGS = {"image": TartImageConfig, "audio": TartAudioConfig}
AUTO = {"image": AutoModelForImageClassification, "audio": AutoModelForAudioClassification}
KEYS = {"image": "vision_config", "audio": "audio_config"}
ONE_OF_EACH = ["vit", "clip", "whisper", "wav2vec2"]  # one tower of one, and of several, that see or hear


def draw_batch(name: str, count: int = 6) -> dict[str, Tensor]:
    """Processed images or sounds of one length."""
    items = make_media(FAMILIES[name].modality, count, seed=1)
    return process(name, items if FAMILIES[name].modality == "image" else [item[:4000] for item in items])


def encode(model: TartMediaModel, name: str, **options: Any) -> SupportSet:
    return model.encode_support(make_media_examples(FAMILIES[name].modality, **options), processor_of(name))


def hidden_states(backbone: PreTrainedModel, batch: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        output = backbone(**{k: v for k, v in batch.items() if k != "attention_mask"}, output_hidden_states=True)
    return [output.last_hidden_state, *output.hidden_states]


class Fitted(NamedTuple):
    """A model with a stored support set, the folder of its backbone, a batch, and the answers to it."""

    name: str
    model: TartMediaModel
    base: Path
    batch: dict[str, Tensor]
    logits: Tensor


def fit(name: str, folder: Path) -> Fitted:
    model, batch = compose_media(name, save_media(folder, name)), draw_batch(name, 12)
    model.set_support(encode(model, name, count=18))
    return Fitted(name, model, folder, batch, model(**batch).logits)


@pytest.fixture(scope="module", params=FAMILIES)
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Each family; tests leave it as it is."""
    return fit(request.param, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def fitted_one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A few families; tests leave them as they are."""
    return fit(request.param, tmp_path_factory.mktemp("base"))


def test__from_backbone__any_family__tells_easy_classes_apart(fitted: Fitted) -> None:
    model, logits = fitted.model, fitted.logits
    assert (logits.shape, logits.dtype) == ((12, 3), torch.float32)
    assert type(model) is class_of(fitted.name)
    assert type(model.backbone).__name__ == FAMILIES[fitted.name].tower
    options = model.config.embedding_options
    kind = "frames" if "energy" in [view.pooling for view in options.views] else model.config.modality
    assert options.views == tuple(VIEWS[name] for name in PRESETS[kind]["default"])
    assert options.protocol == "stream"
    assert (logits.argmax(1) == torch.arange(12) % 3).float().mean() > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("include_backbone", [False, True])
def test__save_pretrained__loaded__same_logits_bit_for_bit(
    fitted: Fitted, include_backbone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted.model.save_pretrained(tmp_path, include_backbone=include_backbone)
    if include_backbone:  # which is then all that is read
        monkeypatch.setattr(fitted.model.config, "base_model_name_or_path", None)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.base_model_name_or_path == fitted.model.config.base_model_name_or_path
    assert type(loaded) is type(fitted.model)
    assert type(loaded.backbone) is type(fitted.model.backbone)
    assert torch.equal(loaded(**fitted.batch).logits, fitted.logits)


@pytest.mark.slow
def test__from_pretrained__class_for_the_modality__finds_it(fitted_one: Fitted, tmp_path: Path) -> None:
    fitted_one.model.save_pretrained(tmp_path)
    for loader in (type(fitted_one.model), AUTO[FAMILIES[fitted_one.name].modality]):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is type(fitted_one.model)
        assert torch.equal(loaded(**fitted_one.batch).logits, fitted_one.logits)


@pytest.mark.slow
def test__dtype__bfloat16__probabilities_stay_close(fitted: Fitted) -> None:
    modality = FAMILIES[fitted.name].modality
    items = make_images(24) if modality == "image" else make_sounds(24, lengths=(8000, 9000))
    examples = [{modality: item, "label": NAMES[i % 3]} for i, item in enumerate(items[6:])]
    batch = process(fitted.name, items[:6] if modality == "image" else [item[:8000] for item in items[:6]])
    model = class_of(fitted.name).from_backbone(fitted.base, dtype=torch.bfloat16)
    assert model.backbone.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.reasoner.parameters()} == {torch.float32}
    found, expected = (
        each(**batch, support=each.encode_support(examples, processor_of(fitted.name))).logits.softmax(1)
        for each in (model, fitted.model)
    )
    assert 0 < (found - expected).abs().max() < 3e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test__from_backbone__backbone__keeps_its_outputs_and_config(name: str) -> None:
    backbone = class_of(name).from_backbone(build_media(name), build_reasoner()).backbone
    batch = draw_batch(name)
    before, config = hidden_states(backbone, batch), backbone.config.to_dict()
    attention = backbone.config._attn_implementation
    model = class_of(name).from_backbone(backbone, build_reasoner())
    model(**batch, support=encode(model, name))
    assert model.backbone is backbone
    assert all(torch.equal(a, b) for a, b in zip(hidden_states(backbone, batch), before, strict=True))
    assert backbone.config.to_dict() == config
    assert backbone.config._attn_implementation == attention


@pytest.mark.parametrize("name", FAMILIES)
def test__train__backbone__is_frozen_and_stays_in_evaluation_mode(name: str) -> None:
    model = compose_media(name, build_media(name).train())
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    assert all(module.training for module in model.reasoner.modules())


@pytest.mark.parametrize("unfrozen", [False, True])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test__backward__backbone__never_gets_gradients(name: str, unfrozen: bool) -> None:
    model = class_of(name).from_backbone(build_media(name), build_reasoner()).train()
    model.backbone.requires_grad_(unfrozen)
    labels = torch.tensor([0, 1, 2, 0, 1, 1])
    model(**draw_batch(name), support=encode(model, name), labels=labels).loss.backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(parameter.grad is not None for parameter in model.reasoner.parameters())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test__forward__labels__cross_entropy(name: str) -> None:
    model, labels = compose_media(name), torch.tensor([0, 1, 2, 0, 1, 1])
    batch, support = draw_batch(name), encode(model, name)
    output = model(**batch, support=support, labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))
    assert model(**batch, support=support).loss is None
    assert isinstance(model(**batch, support=support, return_dict=False), tuple)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test__forward__no_support_set__says_what_to_pass(name: str) -> None:
    with pytest.raises(ValueError, match=r"no support set: pass support=model.encode_support"):
        compose_media(name)(**draw_batch(name))


@pytest.fixture(scope="module", params=["swin", "whisper", "wav2vec2_layer"])
def answered(request: pytest.FixtureRequest) -> tuple[TartMediaModel, dict[str, Tensor], Tensor]:
    """A fitted model, a batch, and the answers to its rows, each alone."""
    model, batch = compose_media(request.param), draw_batch(request.param, 7)
    model.set_support(encode(model, request.param))
    alone = [model(**{key: rows[i : i + 1] for key, rows in batch.items()}).logits for i in range(7)]
    return model, batch, torch.cat(alone)


@pytest.mark.slow
@given(order=st.permutations(range(7)), count=st.integers(1, 7))
def test__forward__any_order_and_batch__equals_one_at_a_time(
    answered: tuple[TartMediaModel, dict[str, Tensor], Tensor], order: list[int], count: int
) -> None:
    model, batch, alone = answered
    chosen = order[:count]
    found = model(**{key: rows[chosen] for key, rows in batch.items()}).logits
    torch.testing.assert_close(found, alone[chosen], atol=1e-4, rtol=1e-4)
    assert (alone.softmax(1) - alone.softmax(1)[0]).abs().max() > 0.1  # or nothing would be shown


@pytest.mark.slow
@settings(max_examples=4)
@given(order=st.permutations(range(12)))
def test__support__any_order_of_the_examples__same_answers(order: list[int]) -> None:
    examples = make_media_examples("image")
    model, batch = compose_media("convnext"), draw_batch("convnext")
    first, second = (
        model(**batch, support=model.encode_support(given, processor_of("convnext"))).logits
        for given in (examples, [examples[i] for i in order])
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test__config__saved_and_loaded__equal(name: str, tmp_path: Path) -> None:
    model = compose_media(name, layers=1, pooling="first")
    model.set_support(encode(model, name))
    model.config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    modality = FAMILIES[name].modality
    assert type(loaded) is CONFIGS[modality]
    loaded.name_or_path = ""  # where it was loaded from
    assert loaded.to_dict() == model.config.to_dict()
    assert loaded.model_type == f"tart_{modality}"
    assert getattr(loaded, KEYS[modality]).to_dict() == model.backbone.config.to_dict()
    (view,) = loaded.views
    assert (view.layers, view.pooling, loaded.modality) == (1, "first", modality)
    assert loaded.id2label == dict(enumerate(NAMES))
    assert loaded.label2id == {label: i for i, label in enumerate(NAMES)}


@pytest.mark.parametrize("cls", CONFIGS.values())
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "loo"}, "protocol is .loo.; .* inputs are embedded each alone"),
        ({"protocol": "vanilla"}, "protocol is .vanilla.; .* inputs are embedded each alone"),
        ({"template": "{text} {label}"}, "without a template|A template is given"),
        ({"pooling": "last"}, r"pooling is .last.; it must be one of \('mean', 'first', 'max'"),
        ({"layers": "some"}, 'layers is .some.; it must be an index, a slice .* "late" or "all"'),
        ({"max_length": 7}, "max_length is 7, which is for texts"),
    ],
)
def test__config__field_that_images_and_audio_have_not__says_so(cls: type, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**fields)


@pytest.mark.parametrize("include_backbone", [False, True])
def test__save_pretrained__files__hold_the_backbone_only_when_asked(
    fitted_one: Fitted, include_backbone: bool, tmp_path: Path
) -> None:
    model = fitted_one.model
    model.save_pretrained(tmp_path, include_backbone=include_backbone)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert keys == {f"reasoner.{key}" for key in model.reasoner.state_dict()}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["base_model_name_or_path"] == (None if include_backbone else str(fitted_one.base))
    assert (config["model_type"], config["has_support"]) == (model.config.model_type, True)
    assert (tmp_path / "backbone").exists() == include_backbone
    if include_backbone:
        saved = load_file(tmp_path / "backbone" / "model.safetensors")
        assert sum(tensor.numel() for tensor in saved.values()) == model.backbone.num_parameters()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test__auto_model__from_config__random_and_working(name: str) -> None:
    family = FAMILIES[name]
    tower = compose_media(name).backbone
    model = AutoModel.from_config(CONFIGS[family.modality](**{KEYS[family.modality]: tower.config.to_dict()})).eval()
    assert type(model) is class_of(name)
    assert type(model.backbone) is type(tower)
    assert torch.isfinite(model(**draw_batch(name), support=encode(model, name)).logits).all()


@pytest.mark.slow
def test__from_pretrained__model_of_another_modality__says_which(tmp_path: Path) -> None:
    fit("vit", tmp_path / "base").model.save_pretrained(tmp_path / "task")
    with pytest.raises(ValueError, match='TART model of type "tart_image", not "tart_audio": load it with AutoModel'):
        TartForAudioClassification.from_pretrained(tmp_path / "task")
    with pytest.raises(ValueError, match="TartImageConfig"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "task")
    assert type(AutoModel.from_pretrained(tmp_path / "task")) is TartForImageClassification
