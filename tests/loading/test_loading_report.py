"""Reports of weights that are missing or unexpected in a checkpoint."""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from helpers.builders import BACKBONES, build_backbone, build_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    CLIPConfig,
    CLIPModel,
    PreTrainedModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from transformers_tart import TartForAudioClassification, TartForSequenceClassification
from transformers_tart.backbones.towers import load_tower
from transformers_tart.errors import CorruptFileError
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.inputs.modality import AUDIO, IMAGE, TEXT
from transformers_tart.loading.report import load_without_report


pytestmark = pytest.mark.core


WHISPER = WhisperConfig(
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    num_mel_bins=8,
    max_source_positions=20,
    max_target_positions=10,
    vocab_size=50,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=1,
)
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CLIP = CLIPConfig(
    text_config={**TOWER, "vocab_size": 50, "max_position_embeddings": 10, "eos_token_id": 2},
    vision_config={**TOWER, "image_size": 8, "patch_size": 4},
    projection_dim=8,
)


def with_head(model_type: str, auto_class: type = AutoModelForCausalLM) -> PreTrainedModel:
    """A random model with a head."""
    return auto_class.from_config(AutoConfig.for_model(model_type, **BACKBONES[model_type]))


def save(model: PreTrainedModel, folder: Path, added: Iterable[str] = (), dropped: str = "nothing") -> str:
    """Save a model, with weights that are none of its own and without those whose names contain `dropped`."""
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if dropped not in name}
    save_file({**weights, **{name: torch.ones(2) for name in added}}, file, {"format": "pt"})
    return str(folder)


def said(logs: pytest.LogCaptureFixture) -> list[str]:
    """The warnings, each once: where CI is set, transformers hands its records on to the root logger too."""
    records = {id(record): record for record in logs.records if record.levelno >= logging.WARNING}
    return [record.getMessage() for record in records.values()]


@pytest.mark.parametrize(
    ("model_type", "auto_class"),
    [
        ("gpt_neox", AutoModelForCausalLM),
        ("gpt2", AutoModelForSequenceClassification),
        ("llama", AutoModelForCausalLM),
        ("bert", AutoModelForMaskedLM),
        ("bert", AutoModelForSequenceClassification),
    ],
)
def test__loading__checkpoint_with_a_head__nothing_is_said(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, model_type: str, auto_class: type
) -> None:
    folder = save(with_head(model_type, auto_class), tmp_path)
    all_logs.clear()
    TartForSequenceClassification.from_backbone(folder)
    assert said(all_logs) == []


@pytest.mark.parametrize("modality", [TEXT, IMAGE])
def test__loading__a_tower_of_two__nothing_is_said_of_the_other(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, modality: str
) -> None:
    folder = save(CLIPModel(CLIP), tmp_path)
    all_logs.clear()
    load_tower(folder, modality)
    assert said(all_logs) == []


def test__loading__whisper__nothing_is_said_of_its_decoder(tmp_path: Path, all_logs: pytest.LogCaptureFixture) -> None:
    folder = save(WhisperForConditionalGeneration(WHISPER), tmp_path)
    all_logs.clear()
    TartForAudioClassification.from_backbone(folder)
    assert said(all_logs) == []


def test__loading__head_without_its_name_in_the_config__nothing_is_said(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    model = with_head("bert", AutoModelForMaskedLM)
    folder = save(model, tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.architectures = None
    config.save_pretrained(folder)
    all_logs.clear()
    load_tower(folder, TEXT)
    assert said(all_logs) == []


@pytest.mark.parametrize("stray", ["gpt_neox.layers.7.weight", "gpt_neox.stray.weight", "stray.weight"])
def test__loading__stray_weight_beside_a_head__is_named_alone(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, stray: str
) -> None:
    folder = save(with_head("gpt_neox"), tmp_path, [stray])
    all_logs.clear()
    load_tower(folder, TEXT)
    (message,) = said(all_logs)
    assert message == f"{folder} holds weights that are no part of GPTNeoXModel: {stray}."


@pytest.mark.parametrize("stray", ["model.encoder.stray.weight", "stray.weight"])
def test__loading__stray_weight_of_whisper__is_named_alone(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, stray: str
) -> None:
    folder = save(WhisperForConditionalGeneration(WHISPER), tmp_path, [stray])
    all_logs.clear()
    load_tower(folder, AUDIO)
    (message,) = said(all_logs)
    assert "no part of WhisperModel: " in message
    assert message.endswith("stray.weight.")
    assert "decoder" not in message


@pytest.mark.parametrize("whole", [True, False])
def test__loading__missing_weights_and_stray_ones__are_named(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, whole: bool
) -> None:
    model = with_head("gpt_neox") if whole else build_backbone("gpt_neox")
    folder = save(model, tmp_path, ["embed.weight"], dropped="layers.1.mlp.dense_h_to_4h")
    all_logs.clear()
    load_tower(folder, TEXT)
    lacking, stray = said(all_logs)
    assert "newly initialized" in lacking
    assert lacking.endswith("layers.1.mlp.dense_h_to_4h.bias, layers.1.mlp.dense_h_to_4h.weight.")
    assert stray.endswith("no part of GPTNeoXModel: embed.weight.")


@pytest.mark.parametrize(("model", "modality", "part"), [(CLIPModel, IMAGE, "vision_model"), (None, AUDIO, "enc")])
def test__loading__missing_weights_of_a_tower__are_named(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture, model: type | None, modality: str, part: str
) -> None:
    saved = WhisperForConditionalGeneration(WHISPER) if model is None else model(CLIP)
    folder = save(saved, tmp_path, dropped="layers.0.self_attn.q_proj.weight")
    all_logs.clear()
    load_tower(folder, modality)
    (message,) = said(all_logs)
    assert message.count("q_proj.weight") == 1  # that of the other tower is not read
    assert f"{part}" in message


def test__loading__weights_of_another_shape__error_follows_the_report_of_transformers(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    folder = save(build_backbone("llama"), tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.intermediate_size *= 2
    config.save_pretrained(folder)
    all_logs.clear()
    with pytest.raises(CorruptFileError, match="above report"):
        load_tower(folder, TEXT)
    assert any("LOAD REPORT" in message for message in said(all_logs))


def test__loading__reports_of_other_threads_and_of_later_loads__stay(
    tmp_path: Path, all_logs: pytest.LogCaptureFixture
) -> None:
    folder = save(with_head("gpt_neox"), tmp_path)
    all_logs.clear()

    def load(name: str, **loading: object) -> object:
        other = threading.Thread(target=AutoModel.from_pretrained, args=(name,))
        other.start()
        other.join()
        return AutoModel.from_pretrained(name, **loading)

    load_without_report(load, folder)
    (report,) = said(all_logs)
    assert "embed_out.weight" in report
    AutoModel.from_pretrained(folder)
    assert len(said(all_logs)) == 2


def test__loading__backbone_of_methods__nothing_is_said(tmp_path: Path, all_logs: pytest.LogCaptureFixture) -> None:
    folder = save(with_head("bert", AutoModelForMaskedLM), tmp_path)
    build_tokenizer().save_pretrained(folder)
    all_logs.clear()
    assert Models(folder).model("text").backbone is not None
    assert said(all_logs) == []
