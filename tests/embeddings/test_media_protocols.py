"""Embeddings of images and audio for researchers, and the published procedure, written out once more."""

import random

import numpy as np
import pytest
import torch
from helpers.builders import build_backbone, build_tokenizer
from PIL import Image
from sklearn.decomposition import PCA
from transformers import AutoModel, ViTConfig, ViTImageProcessor, WhisperConfig, WhisperFeatureExtractor

from transformers_tart.embeddings.protocols import embed_media
from transformers_tart.modeling_tart import TartForImageClassification


WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "vocab_size": 99,
    "max_source_positions": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def build(config: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    return model


def build_vit() -> torch.nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return build(ViTConfig(**sizes, image_size=32, patch_size=8))


def draw_images(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (20 + i % 7, 25, 3)).astype(np.uint8)) for i in range(count)]


def draw_sounds(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(0.3 * rng.standard_normal(6000 + 500 * (i % 5))).astype(np.float32) for i in range(count)]


def published_steps(known: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA to 8, whitened by the covariance of the support set's scores, twice side by side; up to signs."""
    pca = PCA(8, svd_solver="full").fit(known)
    scores, mean = pca.transform(known), pca.transform(known).mean(0)
    values, vectors = np.linalg.eigh(np.cov(scores.T))
    whiten = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T
    return tuple(np.concatenate([(pca.transform(x) - mean) @ whiten] * 2, axis=1) for x in (known, asked))


def shuffled(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def test__embed_media__reference_of_images__published_steps() -> None:
    vit, images, queries = build_vit(), draw_images(24, 0), draw_images(5, 1)
    known, asked, labels = embed_media(vit, None, images, [i % 2 for i in range(24)], queries, seed=7, reference=True)
    order = shuffled(24, 7)
    rows = []
    for image in [*(images[i] for i in order), *queries]:
        gray = np.array(image.resize((32, 32), Image.Resampling.BILINEAR).convert("L"), dtype=np.float32) / 255
        with torch.no_grad():
            rows.append(vit(torch.from_numpy(np.stack([gray] * 3))[None]).last_hidden_state[0].mean(0).numpy())
    first, second = published_steps(np.stack(rows[:24]), np.stack(rows[24:]))
    signs = np.sign((known.numpy() * first).sum(0))
    assert known.shape == (24, 16)
    assert torch.equal(known[:, :8], known[:, 8:])
    np.testing.assert_allclose(known.numpy(), first * signs, atol=2e-3)
    np.testing.assert_allclose(asked.numpy(), second * signs, atol=2e-3)
    assert labels.tolist() == [i % 2 for i in order]


def test__embed_media__reference_of_audio__encoder_and_padding_included() -> None:
    whisper, extractor = build(WhisperConfig(**WHISPER)), WhisperFeatureExtractor(chunk_length=2)
    sounds, queries = draw_sounds(20, 0), draw_sounds(3, 1)
    known, asked, _ = embed_media(whisper, extractor, sounds, [0, 1] * 10, queries, reference=True)
    rows = []
    for sound in [*(sounds[i] for i in shuffled(20, 42)), *queries]:
        features = extractor(sound, sampling_rate=16000, return_tensors="pt").input_features
        with torch.no_grad():
            output = whisper(features, decoder_input_ids=torch.tensor([[1, 1]]))
        rows.append(output.encoder_last_hidden_state[0].mean(0).numpy())
    first, second = published_steps(np.stack(rows[:20]), np.stack(rows[20:]))
    signs = np.sign((known.numpy() * first).sum(0))
    np.testing.assert_allclose(known.numpy(), first * signs, atol=2e-3)
    np.testing.assert_allclose(asked.numpy(), second * signs, atol=2e-3)


@pytest.mark.parametrize("layers", [-1, 1, "all"])
def test__embed_media__images__embeddings_of_the_composed_model(layers: int | str) -> None:
    vit, processor = build_vit(), ViTImageProcessor(size={"height": 32, "width": 32})
    images, queries = draw_images(6, 0), draw_images(3, 1)
    known, asked, labels = embed_media(vit, processor, images, [0, 1] * 3, queries, layers=layers)
    model = TartForImageClassification.from_backbone(vit, layers=layers)
    examples = [{"image": image, "label": i % 2} for i, image in enumerate(images)]
    prepared = model.prepare_support(model.encode_support(examples, processor))
    embeddings = prepared.support.embeddings
    expected = prepared.scalings[0].transform(embeddings) if layers == "all" else embeddings[:, 0]
    torch.testing.assert_close(known, expected, atol=1e-3, rtol=0)  # a support set holds its embeddings in float16
    assert asked.shape == (3, known.shape[1])
    assert labels.tolist() == [0, 1] * 3


def test__embed_media__model_of_texts__says_what_to_use() -> None:
    with pytest.raises(ValueError, match="reads neither images nor audio; use embed for texts"):
        embed_media(build_backbone("bert"), build_tokenizer(), ["a"], [0], ["b"])
