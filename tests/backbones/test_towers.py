"""Towers: the part of a model that reads images, audio or texts, which alone is loaded."""

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.builders import build_backbone, build_reasoner, compose, save_backbone, shared_reasoner
from helpers.media_backbones import (
    FAMILIES,
    WITH_OTHER_TOWERS,
    build_media,
    class_of,
    compose_media,
    make_media,
    process,
    save_media,
    shared_media,
    widen,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel, WhisperConfig

from transformers_tart import TartForAudioClassification, TartForImageClassification, TartForSequenceClassification
from transformers_tart.backbones import towers
from transformers_tart.backbones.towers import build_tower, find_tower, load_tower, modalities_of
from transformers_tart.inputs.modality import AUDIO, TEXT
from transformers_tart.modeling_tart import compose_any


pytestmark = pytest.mark.core


PATHS = {"clip": "vision_model", "siglip": "vision_model", "whisper": "encoder"}
OTHERS = ("decoder", "text_model", "projection", "logit", "proj_out", "classifier", "lm_head")
HEADS = {  # their families, and where the part below is
    "ViTForImageClassification": ("vit", "vit"),
    "SwinForImageClassification": ("swin", "swin"),
    "ConvNextForImageClassification": ("convnext", "convnext"),
    "CLIPForImageClassification": ("clip", "vision_model"),
    "SiglipForImageClassification": ("siglip", "vision_model"),
    "WhisperForConditionalGeneration": ("whisper", "model.encoder"),
    "WhisperForAudioClassification": ("whisper", "encoder"),
    "HubertForCTC": ("hubert", "hubert"),
    "Wav2Vec2ForSequenceClassification": ("wav2vec2_layer", "wav2vec2"),
    "ASTForAudioClassification": ("ast", "audio_spectrogram_transformer"),
}


@functools.cache
def with_head(kind: str) -> PreTrainedModel:
    """A random model with a head; tests leave it as it is."""
    torch.manual_seed(0)
    return widen(getattr(transformers, kind)(copy.deepcopy(FAMILIES[HEADS[kind][0]].config)))


def part_of(whole: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return the part of a model of a family, without a head, that reads images or audio."""
    return whole.get_submodule(PATHS.get(name, ""))


def outputs(tower: PreTrainedModel, name: str) -> torch.Tensor:
    batch = process(name, make_media(FAMILIES[name].modality, 2))
    batch.pop("attention_mask", None)
    with torch.no_grad():
        return tower(**batch).last_hidden_state


def assert_same(found: PreTrainedModel, expected: PreTrainedModel, name: str, absent: str = "-") -> None:
    """The same weights under the same names, the same buffers and the same outputs; `absent` was not saved."""
    for tensors in ("named_parameters", "named_buffers"):
        left, right = dict(getattr(found, tensors)()), dict(getattr(expected, tensors)())
        assert {key for key in left if not key.startswith(absent)} == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in right)
    assert torch.equal(outputs(found, name), outputs(expected, name))


def forbid_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the whole model is loaded")

    monkeypatch.setattr(towers.AutoModel, "from_pretrained", fail)


@pytest.mark.parametrize("name", FAMILIES)
def test__load_tower__any_family__its_weights_equal_those_of_the_whole(name: str, tmp_path: Path) -> None:
    tower = load_tower(save_media(tmp_path, name), FAMILIES[name].modality)
    assert type(tower).__name__ == FAMILIES[name].tower
    assert modalities_of(tower) == (FAMILIES[name].modality,)
    assert not tower.training
    assert_same(tower, part_of(shared_media(name), name), name)


@pytest.mark.parametrize("name", WITH_OTHER_TOWERS)
def test__load_tower__model_of_several_towers__loads_one_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = save_media(tmp_path, name), shared_media(name)
    forbid_whole(monkeypatch)
    tower = load_tower(folder, FAMILIES[name].modality)
    assert tower.num_parameters() == part_of(whole, name).num_parameters() < whole.num_parameters()
    assert not [key for key in tower.state_dict() if any(other in key for other in OTHERS)]


def test__load_tower__decoder_larger_than_any_memory__is_never_made(tmp_path: Path) -> None:
    folder = Path(save_media(tmp_path, "whisper"))
    config = WhisperConfig.from_pretrained(folder)
    config.vocab_size = 10**13  # words of 32 dimensions: more bytes than a process can address
    config.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in weights.items() if not key.startswith("decoder.")}
    assert 0 < len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert_same(load_tower(str(folder), AUDIO), part_of(shared_media("whisper"), "whisper"), "whisper")
    model = TartForAudioClassification.from_backbone(folder, shared_reasoner())
    assert type(model.backbone).__name__ == "WhisperEncoder"


@pytest.mark.parametrize("kind", HEADS)
def test__load_tower__saved_with_a_head__the_part_below(kind: str, tmp_path: Path) -> None:
    (name, place), head = HEADS[kind], with_head(kind)
    tower = load_tower(save_media(tmp_path, name, head), FAMILIES[name].modality)
    assert type(tower).__name__ == FAMILIES[name].tower
    assert_same(tower, head.get_submodule(place), name, absent="pooler")


@pytest.mark.parametrize("kind", ["WhisperForConditionalGeneration", "WhisperForAudioClassification"])
def test__load_tower__saved_with_a_head__does_not_load_the_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_media(tmp_path, "whisper", with_head(kind))
    forbid_whole(monkeypatch)
    assert load_tower(folder, AUDIO).num_parameters() == shared_media("whisper").encoder.num_parameters()


@pytest.mark.parametrize("name", [*WITH_OTHER_TOWERS, "vit"])
def test__load_tower__tower_saved_alone__the_same_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modality = FAMILIES[name].modality
    tower = load_tower(save_media(tmp_path / "whole", name), modality)
    tower.save_pretrained(tmp_path / "tower")
    again, info = type(tower).from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same(again, tower, name)
    assert_same(load_tower(str(tmp_path / "tower"), modality), tower, name)


def test__load_tower__text_of_an_image_model__its_text_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = save_media(tmp_path, "clip"), shared_media("clip")
    forbid_whole(monkeypatch)
    tower = load_tower(folder, TEXT)
    expected = whole.text_model.state_dict()
    assert type(tower).__name__ == "CLIPTextModel"
    assert tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in tower.state_dict().items())


@pytest.mark.parametrize("name", ["vit", "clip", "whisper"])
def test__load_tower__dtype__reaches_the_tower(name: str, tmp_path: Path) -> None:
    tower = load_tower(save_media(tmp_path, name), FAMILIES[name].modality, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", FAMILIES)
def test__find_tower__model_without_head__path_and_part(name: str) -> None:
    whole = shared_media(name)
    path, tower = find_tower(whole, FAMILIES[name].modality)
    assert path == PATHS.get(name, "")
    assert tower is part_of(whole, name)


@pytest.mark.parametrize("kind", HEADS)
def test__find_tower__model_with_a_head__the_part_below(kind: str) -> None:
    (name, place), head = HEADS[kind], with_head(kind)
    path, tower = find_tower(head, FAMILIES[name].modality)
    assert tower is head.get_submodule(place)
    assert tower is head.base_model.get_submodule(path)


@pytest.mark.parametrize("name", FAMILIES)
def test__build_tower__config_of_the_whole_or_the_tower__a_random_tower(name: str) -> None:
    family = FAMILIES[name]
    for config in (family.config, getattr(family.config, "vision_config", family.config)):
        tower = build_tower(copy.deepcopy(config), family.modality)
        assert type(tower).__name__ == family.tower
        assert torch.isfinite(outputs(tower.eval(), name)).all()
        assert tower.num_parameters() == part_of(shared_media(name), name).num_parameters()


@pytest.mark.parametrize("from_folder", [True, False])
@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("llama", TartForImageClassification, "LlamaModel reads text, and no part of it reads image alone"),
        ("llama", TartForAudioClassification, "LlamaModel reads text, and no part of it reads audio alone"),
        ("vit", TartForSequenceClassification, "ViTModel reads image, and no part of it reads text alone"),
        ("vit", TartForAudioClassification, "ViTModel reads image, and no part of it reads audio alone"),
        ("hubert", TartForImageClassification, "HubertModel reads audio, and no part of it reads image alone"),
        ("clip", TartForAudioClassification, "CLIPModel reads image and text, and no part of it reads audio alone"),
    ],
)
def test__from_backbone__model_that_reads_something_else__says_what_to_take(
    name: str, cls: type, message: str, from_folder: bool, tmp_path: Path
) -> None:
    backbone: Any = build_backbone(name) if name == "llama" else shared_media(name)
    if from_folder:
        backbone = save_backbone(tmp_path, name) if name == "llama" else save_media(tmp_path, name)
    with pytest.raises(ValueError, match=message + "; take a backbone that reads"):
        cls.from_backbone(backbone, shared_reasoner())


@pytest.mark.parametrize("from_folder", [True, False])
@pytest.mark.parametrize("kind", ["text", "image", "audio", "reasoner"])
@pytest.mark.parametrize("cls", [TartForImageClassification, TartForAudioClassification])
def test__from_backbone__model_or_reasoner_of_this_package__says_what_to_do(
    kind: str, cls: type, from_folder: bool, tmp_path: Path
) -> None:
    names = {"image": "vit", "audio": "wav2vec2"}
    given: Any = build_reasoner() if kind == "reasoner" else compose()
    if kind in names:
        given = compose_media(names[kind], save_media(tmp_path / "base", names[kind]))
    if from_folder:
        options = {} if kind == "reasoner" else {"include_backbone": True}
        given.save_pretrained(tmp_path / "tart", **options)
        given = tmp_path / "tart"
    with pytest.raises(ValueError, match="is a TART model or reasoner, not a backbone"):
        cls.from_backbone(given)


@pytest.mark.parametrize("from_folder", [True, False])
@pytest.mark.parametrize("name", ["vit", "clip", "whisper", "hubert", "ast"])
def test__compose_any__any_family__its_class_and_tower(name: str, from_folder: bool, tmp_path: Path) -> None:
    model = compose_any(save_media(tmp_path, name) if from_folder else build_media(name), reasoner=shared_reasoner())
    assert type(model) is class_of(name)
    assert type(model.backbone).__name__ == FAMILIES[name].tower


@pytest.mark.parametrize("from_folder", [True, False])
def test__compose_any__texts__their_class(from_folder: bool, tmp_path: Path) -> None:
    backbone = save_backbone(tmp_path) if from_folder else build_backbone("llama")
    assert type(compose_any(backbone, reasoner=shared_reasoner())) is TartForSequenceClassification


def test__from_backbone__images_and_texts__each_class_takes_its_tower(tmp_path: Path) -> None:
    folder = save_media(tmp_path, "clip")
    for cls, kind in (
        (TartForImageClassification, "CLIPVisionModel"),
        (TartForSequenceClassification, "CLIPTextModel"),
    ):
        assert type(cls.from_backbone(folder, shared_reasoner()).backbone).__name__ == kind
        assert type(cls.from_backbone(AutoModel.from_pretrained(folder), shared_reasoner()).backbone).__name__ == kind
