"""What counts of hidden states: sound, and not what a feature extractor fills up with."""

import numpy as np
import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from transformers_tart.backbones.traits import BackboneTraits
from transformers_tart.embeddings import pooling
from transformers_tart.embeddings.media import MediaEmbedder, collate
from transformers_tart.embeddings.pooling import has_padding, pool_map
from transformers_tart.inputs.embedding_options import EmbeddingOptions
from transformers_tart.inputs.modality import AUDIO
from transformers_tart.inputs.views import View


FRAMES, BINS = 128, 32


@pytest.fixture(scope="module")
def transformer() -> ASTModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = ASTModel(ASTConfig(**sizes, max_length=FRAMES, num_mel_bins=BINS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    return model


def draw_sound(samples: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def embed(model: ASTModel | BackboneTraits, sounds: list[np.ndarray], layers: int | str = "all") -> torch.Tensor:
    traits = model if isinstance(model, BackboneTraits) else BackboneTraits(model)
    embedder = MediaEmbedder(traits, EmbeddingOptions(views=(View("mean", layers=layers),)), modality=AUDIO)
    extractor = ASTFeatureExtractor(max_length=FRAMES, num_mel_bins=BINS)
    return embedder.embed_rows([embedder.row(extractor, sound, "It") for sound in sounds])


def means_of_real_patches(model: ASTModel, sound: np.ndarray) -> torch.Tensor:
    """Means over the two added tokens and the patches that hold a frame of sound, by the geometry of the patches."""
    extractor = ASTFeatureExtractor(max_length=FRAMES, num_mel_bins=BINS)
    features = extractor(sound, sampling_rate=16000, return_tensors="pt").input_values
    frames = int((features[0] != features[0, -1]).any(1).sum())
    config = model.config
    per_row = (FRAMES - config.patch_size) // config.time_stride + 1
    rows = (BINS - config.patch_size) // config.frequency_stride + 1
    starts = torch.arange(per_row) * config.time_stride
    real = torch.cat([torch.ones(2, dtype=torch.bool), (starts < frames).repeat(rows)])
    with torch.no_grad():
        hidden_states = model(features, output_hidden_states=True).hidden_states
    return torch.stack([hidden[0, real].mean(0) for hidden in hidden_states])


@pytest.mark.parametrize("samples", [3000, 9000, 15000])
def test__audio__filled_up_without_a_mask__mean_over_patches_of_sound(transformer: ASTModel, samples: int) -> None:
    sound = draw_sound(samples)
    torch.testing.assert_close(
        embed(transformer, [sound])[0], means_of_real_patches(transformer, sound), rtol=1e-4, atol=1e-5
    )


def test__audio__filled_up__batch_mates_and_layers_change_nothing(transformer: ASTModel) -> None:
    sounds = [draw_sound(length, seed) for seed, length in enumerate((3000, 40000, 12000))]
    together = embed(transformer, sounds)
    torch.testing.assert_close(together, torch.cat([embed(transformer, [s]) for s in sounds]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed(transformer, sounds, 1)[:, 0], together[:, 1], rtol=1e-4, atol=1e-5)


def test__audio__as_long_as_the_window__plain_mean(transformer: ASTModel) -> None:
    features = torch.randn(2, FRAMES, BINS, generator=torch.Generator().manual_seed(0))
    assert not has_padding(features)
    found = MediaEmbedder(BackboneTraits(transformer), EmbeddingOptions(), modality=AUDIO).embed_batch(
        collate([{"input_values": features[0]}])
    )
    with torch.no_grad():
        expected = transformer(features[:1]).last_hidden_state.mean(1)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test__audio__same_padding_again__read_once(transformer: ASTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    run = pooling.run_backbone
    monkeypatch.setattr(pooling, "run_backbone", lambda *args, **kw: passes.append(1) or run(*args, **kw))
    traits = BackboneTraits(transformer)
    for seed in range(3):
        embed(traits, [draw_sound(5000, seed)])
    assert len(passes) == 2  # by padding of one value and of another


def test__pool_map__first_of_a_map__says_what_to_do() -> None:
    with pytest.raises(ValueError, match='pooling="mean"'):
        pool_map(torch.ones(1, 3, 2, 2), "first")
