"""Frames weighted by the energy of their sound."""

import numpy as np
import pytest
import torch
from helpers.media_backbones import RATE, as_pcm, compose_media, make_sounds, process, processor_of

from transformers_tart.embeddings.energy import energies_of
from transformers_tart.inputs.views import View


WITH_FRAMES = ("whisper", "wav2vec2", "wav2vec2_layer", "hubert")
STEP = 320  # samples of each output of the models of waveforms


def embed(name: str, items: list, pooling: str = "energy", layers: int | str = "all") -> torch.Tensor:
    model = compose_media(name, views=[View(pooling=pooling, layers=layers)])
    embedder = model.embedder()
    return embedder.embed_rows([embedder.row(processor_of(name), item, "It") for item in items])


@pytest.mark.parametrize("name", WITH_FRAMES)
def test__energy__batch_mates__change_nothing(name: str) -> None:
    sounds = make_sounds(3, lengths=(3000, 12000))
    together = embed(name, sounds)
    alone = torch.cat([embed(name, [sound]) for sound in sounds])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (together - embed(name, sounds, "mean")).abs().max() > 1e-3


def test__energy__samples__mean_weighted_by_their_root_mean_square() -> None:
    sound = make_sounds(1)[0]
    batch = process("wav2vec2_layer", [sound])
    model = compose_media("wav2vec2_layer").backbone
    with torch.no_grad():
        hidden = model(batch["input_values"]).last_hidden_state[0]
    samples = batch["input_values"][0, : STEP * len(hidden)]
    weights = samples.unflatten(0, (len(hidden), STEP)).square().mean(1).sqrt()
    expected = (weights[:, None] * hidden).sum(0) / weights.sum()
    found = embed("wav2vec2_layer", [sound], layers=-1)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test__energy__log_mel__amplitude_of_each_pair_of_frames() -> None:
    loud, sound = np.zeros(RATE), make_sounds(1, lengths=(4000, 4001))[0]
    loud[8000:12000] = sound
    batch = process("whisper", [as_pcm(loud)])
    features = batch["input_features"]
    found = energies_of(compose_media("whisper").backbone, features, batch["attention_mask"])(features.shape[2] // 2)
    # the extractor keeps 8 decades below the loudest value, and divides decades by 4
    power = torch.pow(10.0, 4 * (features - features.max())).mean(1).unflatten(1, (-1, 2)).mean(2)
    torch.testing.assert_close(found, power.sqrt(), rtol=1e-3, atol=1e-6)
    assert 25 <= int(found[0].argmax()) < 38  # 50 outputs in a second


@pytest.mark.parametrize("name", ["wav2vec2", "whisper"])
def test__energy__silence__finite(name: str) -> None:
    assert torch.isfinite(embed(name, [np.zeros(8000, dtype=np.float32)])).all()


def test__energy__outputs_that_are_no_frames__refused() -> None:
    with pytest.raises(ValueError, match='pooling="mean" or "max"'):
        embed("ast", make_sounds(1))


def test__energy__images__refused() -> None:
    with pytest.raises(ValueError, match="it must be one of"):
        compose_media("vit", views=[View(pooling="energy")])


@pytest.mark.parametrize(("name", "pooling"), [("whisper", "energy"), ("hubert", "energy"), ("ast", "max")])
def test__default_views__audio__energy_where_outputs_are_frames(name: str, pooling: str) -> None:
    views = compose_media(name).config.views
    assert [(view.pooling, view.layers) for view in views] == [("mean", "late"), (pooling, "late")]
