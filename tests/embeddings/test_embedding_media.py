"""Embeddings of images and audio: which layers, which parts of an input, and that padding counts for nothing."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.builders import shared_reasoner
from helpers.media_backbones import (
    AUDIO_FAMILIES,
    FAMILIES,
    RATE,
    build_media,
    compose_media,
    make_images,
    make_media,
    make_media_examples,
    make_sounds,
    process,
    processor_of,
    shared_media,
    widen,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import AutoModel, CLIPImageProcessor, Wav2Vec2Config

from transformers_tart import TartForAudioClassification
from transformers_tart.embeddings.media import MediaEmbedder
from transformers_tart.inputs.views import View
from transformers_tart.modeling_tart import TartMediaModel


pytestmark = pytest.mark.core


def embedder_of(name: str, **options: Any) -> MediaEmbedder:
    """How a model with the backbone of a family reads, which is made anew: what it learns of padding is its own."""
    return compose_media(name, copy.deepcopy(shared_media(name)), **{"layers": "all", **options}).embedder()


def read(embedder: MediaEmbedder, name: str, items: list[Any]) -> list[dict[str, Tensor]]:
    processor = processor_of(name)
    return [embedder.row(processor, item, f"Input {i}") for i, item in enumerate(items)]


def run(embedder: MediaEmbedder, batch: dict[str, Tensor], keep_mask: bool = False) -> Any:
    """The backbone's own output."""
    given = {key: tensor for key, tensor in batch.items() if keep_mask or key != "attention_mask"}
    with torch.no_grad():
        return embedder.backbone(**given, output_hidden_states=True)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def draw_batch(name: str, count: int = 3) -> dict[str, Tensor]:
    items = make_media(FAMILIES[name].modality, count)
    if FAMILIES[name].modality == "audio":
        length = 21000 if name == "ast" else 3000  # ast: of a whole window, without padding
        items = make_sounds(count, lengths=(length, length + 1))
    batch = process(name, items)
    return batch if name == "whisper" else {k: v for k, v in batch.items() if k != "attention_mask"}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("convnext", "swin", "whisper")])
def test__embed_batch__all_layers__means_over_the_tokens(name: str) -> None:
    embedder, batch = embedder_of(name), draw_batch(name)
    expected = torch.stack([hidden.mean(1) for hidden in run(embedder, batch).hidden_states], dim=1)
    assert expected.shape == (3, 3, 32)
    assert_close(embedder.embed_batch(batch), expected)


@pytest.mark.parametrize(("name", "widths"), [("swin", [16, 32, 32]), ("convnext", [8, 8, 16])])
def test__embed_batch__layers_of_several_widths__means_filled_up_with_zeros(name: str, widths: list[int]) -> None:
    embedder, batch = embedder_of(name), draw_batch(name)
    expected = torch.zeros(3, len(widths), max(widths))
    found = []
    for i, hidden in enumerate(run(embedder, batch).hidden_states):
        mean = hidden.mean((2, 3)) if hidden.dim() == 4 else hidden.mean(1)  # (n, width, h, w) or (n, h * w, width)
        expected[:, i, : mean.shape[1]] = mean
        found.append(mean.shape[1])
    assert sorted(found) == widths
    assert_close(embedder.embed_batch(batch), expected)


@pytest.mark.parametrize("shape", [(32, 40), (40, 32), (32, 32), (64, 16)])
def test__embed_batch__maps_as_high_or_wide_as_their_hidden_size__means_over_their_places(
    shape: tuple[int, int],
) -> None:
    embedder = embedder_of("convnext")
    batch = {"pixel_values": torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))}
    expected = torch.zeros(2, 3, 16)
    for i, hidden in enumerate(run(embedder, batch).hidden_states):
        expected[:, i, : hidden.shape[1]] = hidden.mean((2, 3))
    assert_close(embedder.embed_batch(batch), expected)


@pytest.mark.parametrize("layers", [0, 1, -2])
@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "wav2vec2", "whisper"])
def test__embed_batch__one_layer__that_of_all(name: str, layers: int) -> None:
    batch = draw_batch(name)
    width = run(embedder_of(name), batch).hidden_states[layers].shape[1 if name == "convnext" else -1]
    found = embedder_of(name, layers=layers).embed_batch(batch)
    assert found.shape == (3, 1, width)
    assert_close(found[:, 0], embedder_of(name).embed_batch(batch)[:, layers, :width])


@pytest.mark.parametrize("name", ["vit", "swin", "convnext", "wav2vec2"])
def test__embed_batch__last_layer__mean_of_the_last_hidden_state(name: str) -> None:
    embedder, batch = embedder_of(name, layers=-1), draw_batch(name)
    hidden = run(embedder, batch).last_hidden_state
    expected = hidden.mean((2, 3)) if name == "convnext" else hidden.mean(1)
    assert_close(embedder.embed_batch(batch), expected[:, None])


@pytest.mark.parametrize("layers", [3, -4, 99])
@pytest.mark.parametrize("name", ["vit", "wav2vec2", "whisper", "ast"])
def test__embed_batch__layer_that_is_not_there__says_which_are(name: str, layers: int) -> None:
    batch = process(name, make_sounds(2)) if name == "ast" else draw_batch(name)  # with padding
    with pytest.raises(ValueError, match=f"layers is {layers}; the backbone has hidden states 0 to 2"):
        embedder_of(name, layers=layers).embed_batch(batch)


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "ast", "wav2vec2", "whisper"])
def test__embed_batch__pooling_first__first_tokens(name: str) -> None:
    embedder, batch = embedder_of(name, pooling="first"), draw_batch(name)
    expected = torch.stack([hidden[:, 0] for hidden in run(embedder, batch).hidden_states], dim=1)
    assert_close(embedder.embed_batch(batch), expected)
    assert not torch.allclose(expected, embedder_of(name).embed_batch(batch), atol=1e-2)


@pytest.mark.parametrize("layers", ["all", -1])
def test__embed_batch__pooling_first_of_maps__says_what_to_do(layers: int | str) -> None:
    with pytest.raises(ValueError, match='gives maps of features, of which none is the first.*pooling="mean"'):
        embedder_of("convnext", pooling="first", layers=layers).embed_batch(draw_batch("convnext"))


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
def test__embedder__max_length__is_for_texts(name: str) -> None:
    with pytest.raises(ValueError, match="max_length is 7, which is for texts"):
        compose_media(name).embedder(max_length=7)


def count_frames(samples: int) -> int:
    """Frames that wav2vec2 makes of a sound, by the kernels and strides of its seven convolutions."""
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


@pytest.mark.parametrize("name", ["wav2vec2_layer", "whisper"])
def test__embed_batch__padded_sounds__means_over_their_own_frames(name: str) -> None:
    embedder, sounds = embedder_of(name), make_sounds(5)
    batch = process(name, sounds)
    states = run(embedder, batch, keep_mask=name != "whisper").hidden_states
    # whisper: a frame of features every 160 samples, of which a convolution takes every second
    counts = [math.ceil(len(x) / 320) if name == "whisper" else count_frames(len(x)) for x in sounds]
    expected = torch.stack([torch.stack([state[i, :n].mean(0) for state in states]) for i, n in enumerate(counts)])
    assert len(set(counts)) > 2
    assert max(counts) == states[0].shape[1] or name == "whisper"
    assert_close(embedder.embed_batch(batch), expected)
    assert not torch.allclose(expected, torch.stack([state.mean(1) for state in states], 1), atol=1e-2)


@pytest.mark.parametrize("name", ["wav2vec2_layer", "whisper", "ast"])
def test__forward__padded_batch__equals_each_alone(name: str) -> None:
    model, sounds = compose_media(name), make_sounds(5, seed=1)
    model.set_support(model.encode_support(make_media_examples("audio"), processor_of(name)))
    alone = torch.cat([model(**process(name, [sound])).logits for sound in sounds])
    assert_close(model(**process(name, sounds)).logits, alone)
    assert (alone.softmax(1)[0] - alone.softmax(1)[1]).abs().max() > 0.1


def test__embed_batch__outputs_of_padding_that_are_nan__count_for_nothing() -> None:
    embedder, sounds = embedder_of("wav2vec2_layer"), make_sounds(3)
    batch = process("wav2vec2_layer", sounds)
    expected, replaced = embedder.embed_batch(batch), []

    def spoil(module: Any, args: Any, output: Any) -> Any:
        for i, sound in enumerate(sounds):
            for state in output.hidden_states:
                state[i, count_frames(len(sound)) :] = torch.nan
                replaced.append(int(state[i].isnan().any()))
        return output

    embedder.backbone.register_forward_hook(spoil)
    assert_close(embedder.embed_batch(batch), expected)
    assert sum(replaced) == 2 * 3  # of two sounds in three layers


def check_together(embedder: MediaEmbedder, rows: list[dict[str, Tensor]]) -> None:
    """What is embedded together equals each alone."""
    together = embedder.embed_rows(rows)
    assert_close(together, torch.cat([embedder.embed_rows([row]) for row in rows]))


@pytest.mark.parametrize("name", AUDIO_FAMILIES)
def test__embed_rows__sounds_of_many_lengths__each_as_alone(name: str) -> None:
    embedder = embedder_of(name)
    check_together(embedder, read(embedder, name, make_sounds(7)))


@pytest.mark.parametrize("name", ["whisper", "ast", "wav2vec2_layer"])
def test__embed_rows__sound_of_the_whole_length_that_ends_in_silence__as_alone(name: str) -> None:
    """Of a low tone the highest bins are empty, as those of recordings of telephones are."""
    embedder, times = embedder_of(name), np.arange(2 * RATE) / RATE
    loudness = np.where(times < 1, np.sin(np.pi * times) ** 4, 0)
    sound = (0.5 * loudness * np.sin(2 * np.pi * 200 * times)).astype(np.float32)
    check_together(embedder, read(embedder, name, [sound, *make_sounds(3)]))


@pytest.mark.parametrize("name", ["whisper", "ast"])
def test__embed_rows__bfloat16__close_to_each_alone(name: str) -> None:
    embedder = compose_media(name, build_media(name).to(torch.bfloat16)).embedder()
    rows = read(embedder, name, make_sounds(7))
    alone = torch.cat([embedder.embed_rows([row]) for row in rows])
    torch.testing.assert_close(embedder.embed_rows(rows), alone, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_layer", "hubert"])
@pytest.mark.parametrize("first", ["nearly_one_length", "silence"])
def test__embed_rows__first_sounds_that_padding_hardly_changes__later_ones_as_alone(name: str, first: str) -> None:
    embedder, sounds = embedder_of(name), make_sounds(6)
    longer = make_sounds(2, lengths=(RATE, RATE + 1))
    pair = [longer[0], longer[1][:-1]] if first == "nearly_one_length" else [np.zeros(3000, "f4"), sounds[0]]
    embedder.embed_rows(read(embedder, name, pair))
    check_together(embedder, read(embedder, name, sounds))


@pytest.mark.slow
@settings(max_examples=5)
@example(lengths=[3000, 2999, 8000])
@given(lengths=st.lists(st.integers(400, 8000), min_size=2, max_size=5))
@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2_layer"])
def test__embed_rows__any_lengths__each_as_alone(name: str, lengths: list[int]) -> None:
    embedder = embedder_of(name)
    sounds = [make_sounds(1, seed=i, lengths=(n, n + 1))[0] for i, n in enumerate(lengths)]
    check_together(embedder, read(embedder, name, sounds))


@pytest.mark.parametrize("name", ["clip", "convnext", "dinov2", "swin"])
def test__embed_rows__images_that_keep_their_shapes__each_as_alone(name: str) -> None:
    embedder, processor = embedder_of(name), CLIPImageProcessor(size={"shortest_edge": 32}, do_center_crop=False)
    images = [image.resize((32 + 4 * (i % 3), 32)) for i, image in enumerate(make_images(8))]
    if name == "clip":  # which takes one size only
        images = [image.resize((32, 32)) for image in images]
    rows = [embedder.row(processor, image, "An input") for image in images]
    assert len({row["pixel_values"].shape for row in rows}) == (1 if name == "clip" else 3)
    check_together(embedder, rows)


@pytest.mark.parametrize("size", [(1, 1), (40, 1), (40, 3), (3, 40)])
@pytest.mark.parametrize("name", ["vit", "dinov2", "convnext", "clip"])
def test__row__image_as_narrow_as_a_color__colors_stay_apart(name: str, size: tuple[int, int]) -> None:
    pixels = embedder_of(name).row(processor_of(name), Image.new("RGB", size, (255, 0, 0)), "x")["pixel_values"]
    assert pixels.shape == (3, 32, 32)
    assert all((color == color[0, 0]).all() for color in pixels)
    assert pixels[0, 0, 0] > max(pixels[1, 0, 0], pixels[2, 0, 0])


def test__row__sound_longer_than_the_backbone_hears__its_beginning() -> None:
    embedder, sound = embedder_of("whisper"), make_sounds(1, lengths=(3 * RATE, 3 * RATE + 1))[0]
    long, cut = read(embedder, "whisper", [sound, sound[: 2 * RATE]])
    assert long["input_features"].shape == cut["input_features"].shape
    assert_close(embedder.embed_rows([long])[:, 0], embedder.embed_rows([cut])[:, 0])


def compose_with_adapter() -> TartMediaModel:
    """A wav2vec2 whose last outputs are fewer than the hidden states of its layers."""
    config = copy.deepcopy(FAMILIES["wav2vec2_layer"].config).to_dict()
    torch.manual_seed(0)
    backbone = AutoModel.from_config(Wav2Vec2Config(**{**config, "add_adapter": True, "num_adapter_layers": 2}))
    return TartForAudioClassification.from_backbone(widen(backbone), copy.deepcopy(shared_reasoner()))


@pytest.mark.parametrize("layers", ["all", 1, -1])
def test__embed_batch__mask_without_padding__changes_nothing(layers: int | str) -> None:
    """Stock pipelines give a mask for every sound; what is alone has none here."""
    for model in (compose_with_adapter(), compose_media("wav2vec2_layer", build_media("wav2vec2_layer"))):
        model.config.views = [View(layers=layers)]
        batch = process("wav2vec2_layer", [make_sounds(1)[0]])
        assert batch["attention_mask"].all()
        masked = model.embedder().embed_batch(batch)
        assert_close(masked, model.embedder().embed_batch({"input_values": batch["input_values"]}))


@pytest.mark.parametrize("layers", ["all", 1])
def test__embed_batch__padded_sounds_before_an_adapter__each_as_alone(layers: int | str) -> None:
    model, sounds = compose_with_adapter(), make_sounds(3)
    model.config.views = [View(layers=layers)]
    alone = [model.embedder().embed_batch(process("wav2vec2_layer", [sound])) for sound in sounds]
    assert_close(model.embedder().embed_batch(process("wav2vec2_layer", sounds)), torch.cat(alone))
