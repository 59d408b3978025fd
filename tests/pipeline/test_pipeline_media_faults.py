"""Images and audio that cannot be read leave the others alone, and what is kept in a cache is not made again."""

import logging
import math
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.media_backbones import (
    AUDIO_FAMILIES,
    FAMILIES,
    PITCHES,
    RATE,
    as_pcm,
    make_media,
    make_media_examples,
    make_sounds,
    save_media,
    to_png,
    to_wav,
    widen,
)
from transformers import ViTForImageClassification, pipeline

from transformers_tart import TartClassificationPipeline


NOISE = np.random.default_rng(0)
VIDEO = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00" + NOISE.bytes(5000)
PNG = to_png(make_media("image", 1)[0])
BAD = {
    "image": {
        "video": VIDEO,
        "cut_file": PNG[: len(PNG) // 2],
        "text_file": b"not an image",
        "view_of_text_file": memoryview(b"not an image"),
        "empty_file": b"",
        "no_file": "there/is/none.png",
        "open_file": BytesIO(PNG),
        "no_pixels": np.zeros((0, 5, 3), "uint8"),
        "nan": np.full((9, 9, 3), np.nan),
        "many": np.zeros((2, 9, 9, 3), "uint8"),
        "number": 7,
        "nothing": None,
        "other_key": {"text": "an image"},
    },
    "audio": {
        "video": VIDEO,
        "text_file": b"not a sound",
        "empty_file": b"",
        "no_file": "there/is/none.wav",
        "open_file": BytesIO(to_wav(NOISE.uniform(-1, 1, 4000))),
        "no_samples": np.zeros(0, "float32"),
        "file_without_samples": to_wav(np.zeros(0)),
        "nan": np.full(4000, np.nan, "float32"),
        "loud": np.full(4000, 3e4, "float32"),
        "many": np.zeros((20, 40), "float32"),
        "no_rate": {"array": np.zeros(4000, "float32")},
        "number": 7,
        "nothing": None,
    },
}
CASES = [(modality, kind) for modality in BAD for kind in BAD[modality]]


class Fitted(NamedTuple):
    modality: str
    classify: TartClassificationPipeline
    items: list[Any]
    expected: list[list[dict]]


def compose(name: str, folder: Path) -> TartClassificationPipeline:
    examples = make_media_examples(FAMILIES[name].modality)
    return pipeline("tart-classification", model=save_media(folder, name), examples=examples)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fitted]:
    """A pipeline that sees and one that hears, inputs and the answers to them; tests leave them as they are."""
    made = {}
    for name in ("convnext", "wav2vec2_layer"):
        modality = FAMILIES[name].modality
        classify, items = compose(name, tmp_path_factory.mktemp(name)), make_media(modality, 6, seed=1)
        made[modality] = Fitted(modality, classify, items, classify(items, top_k=None))
    return made


def assert_same(found: list[list[dict]], expected: list[list[dict]], tolerance: float = 1e-5) -> None:
    scores = [{r["label"]: r["score"] for r in result} for result in found]
    assert scores == [pytest.approx({r["label"]: r["score"] for r in result}, abs=tolerance) for result in expected]


def assert_failed(result: dict, start: str) -> None:
    assert set(result) == {"label", "score", "error"}
    assert result["label"] is None
    assert math.isnan(result["score"])
    assert result["error"].startswith(start)
    assert len(result["error"]) > len(start) + 10


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "kind"), CASES)
def test__call__bad_input_among_good_ones__others_keep_their_answers(
    modality: str, kind: str, fitted: dict[str, Fitted]
) -> None:
    _, classify, items, expected = fitted[modality]
    found = classify([*items[:2], BAD[modality][kind], *items[2:]], top_k=None)
    assert len(found[2]) == 1
    assert_failed(found[2][0], "Input 2 ")
    assert found[:2] + found[3:] == expected


@pytest.mark.parametrize(("modality", "kind"), [case for case in CASES if case[1] != "many"])
def test__call__bad_input_alone__raises(modality: str, kind: str, fitted: dict[str, Fitted]) -> None:
    bad = BAD[modality][kind]
    with pytest.raises((ValueError, TypeError, OSError), match="^The input "):
        fitted[modality].classify(bad)
    with pytest.raises((ValueError, TypeError, OSError), match="^The input "):
        fitted[modality].classify(bad, examples=make_media_examples(modality), top_k=None)


@pytest.mark.parametrize("modality", BAD)
@pytest.mark.parametrize("make", [list, iter])
def test__call__many_bad_inputs__each_says_why(modality: str, make: Callable, fitted: dict[str, Fitted]) -> None:
    _, classify, items, expected = fitted[modality]
    bad = list(BAD[modality].values())
    found = list(classify(make([*bad, items[0], *bad, items[1]]), batch_size=2))
    assert len(found) == 2 * len(bad) + 2
    for i, result in enumerate(found):
        if i in (len(bad), len(found) - 1):
            assert result["label"] == expected[i > len(bad)][0]["label"]
            assert result["score"] == pytest.approx(expected[i > len(bad)][0]["score"], abs=1e-5)
        else:
            assert_failed(result, f"Input {i} ")
    assert [result["label"] for result in classify(bad)] == [None] * len(bad)


@pytest.mark.parametrize("modality", BAD)
def test__call__bad_inputs__logged_without_what_they_are(
    modality: str, fitted: dict[str, Fitted], all_logs: pytest.LogCaptureFixture
) -> None:
    fitted[modality].classify([*fitted[modality].items, BAD[modality]["no_file"], BAD[modality]["video"]])
    errors = [record.getMessage() for record in all_logs.records if record.levelno >= logging.WARNING]
    assert errors == ['2 of 8 inputs cannot be read; their results hold the reason under "error".']
    assert "there/is" not in all_logs.text


@pytest.mark.parametrize(("modality", "kind"), CASES)
def test__set_examples__bad_one__raises_with_its_number(modality: str, kind: str, fitted: dict[str, Fitted]) -> None:
    examples = make_media_examples(modality)
    examples[7][modality] = BAD[modality][kind]
    classify = fitted[modality].classify
    for call in (classify.set_examples, lambda given: classify(fitted[modality].items, examples=given)):
        with pytest.raises((ValueError, TypeError, OSError), match=f"^The {modality} of example 7 "):
            call(examples)
    assert classify(fitted[modality].items, top_k=None) == fitted[modality].expected


def test__call__stereo_and_other_rates__as_mono_at_the_rate(fitted: dict[str, Fitted]) -> None:
    _, classify, items, expected = fitted["audio"]
    sound = items[0]
    stereo = np.stack([as_pcm(1.5 * sound), as_pcm(0.5 * sound)], axis=1)
    found = classify([*items, to_wav(stereo), stereo, stereo.T], top_k=None)
    assert_same(found[:6], expected)
    assert_same(found[6:], 3 * [classify(stereo.mean(1), top_k=None)], 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 48000])
def test__call__tone_at_another_rate__the_class_of_its_pitch(rate: int, fitted: dict[str, Fitted]) -> None:
    tones = [0.5 * np.sin(2 * np.pi * pitch * np.arange(rate // 2) / rate) for pitch in PITCHES]
    at_rate = [0.5 * np.sin(2 * np.pi * pitch * np.arange(RATE // 2) / RATE) for pitch in PITCHES]
    _, classify, items, expected = fitted["audio"]
    found = classify([*items, *(to_wav(tone, rate) for tone in tones)], top_k=None)
    assert_same(found[:6], expected)
    assert_same(found[6:], classify(at_rate, top_k=None), 0.1)
    rows = [classify.preprocess(to_wav(tone, rate))["input_values"][0] for tone in tones]
    for row, same in zip(rows, at_rate, strict=True):
        assert abs(len(row) - len(same)) <= 1
        assert torch.corrcoef(torch.stack([row[: RATE // 3], torch.from_numpy(same[: RATE // 3])]))[0, 1] > 0.99


@pytest.mark.parametrize("name", AUDIO_FAMILIES)
def test__call__very_short_sounds__an_answer_or_a_clear_error(name: str, tmp_path: Path) -> None:
    classify, good = compose(name, tmp_path), make_sounds(3)
    lengths = (1, 2, 100, 399, 400, 800)
    found = classify([*good, *(good[0][:n] for n in lengths)])
    assert [r["label"] for r in found[:3]] == [r["label"] for r in classify(good)]
    for i, result in enumerate(found[3:], start=3):
        if result["label"] is None:
            assert_failed(result, f"Input {i} ")
        else:
            assert 1 / 3 <= result["score"] <= 1
    assert found[-1]["label"] is not None


@pytest.mark.parametrize("error", [AssertionError, IndexError])
@pytest.mark.parametrize("modality", BAD)
def test__call__processor_that_fails_at_an_input__others_keep_their_answers(
    modality: str, error: type[Exception], fitted: dict[str, Fitted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feature extractors that use torchaudio raise AssertionErrors at sounds that are too short for a window."""
    _, classify, items, expected = fitted[modality]
    processor, argument = classify._processor, {"image": "image_processor", "audio": "feature_extractor"}[modality]

    class Failing:
        sampling_rate = RATE

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if not np.asarray(args[0] if args else kwargs["images"]).any():
                raise error("choose a window size 400 that is [2, 100]")
            return processor(*args, **kwargs)

    monkeypatch.setattr(classify, argument, Failing())
    empty = np.zeros((20, 20, 3), np.uint8) if modality == "image" else np.zeros(8000, np.float32)
    found = classify([*items[:2], empty, *items[2:]], top_k=None)
    assert_failed(found[2][0], "Input 2 ")
    assert found[:2] + found[3:] == expected


def count_forwards(classify: TartClassificationPipeline) -> list[int]:
    """A list that grows with each forward pass of the backbone."""
    calls: list[int] = []
    classify.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "whisper", "wav2vec2_layer", "ast"])
def test__embedding_cache__second_run__reads_it_and_runs_no_backbone(name: str, tmp_path: Path) -> None:
    modality = FAMILIES[name].modality
    folder, items = save_media(tmp_path / "base", name), make_media(modality, 6, seed=1)
    classify = pipeline("tart-classification", model=folder, embedding_cache=tmp_path / "cache")
    first = count_forwards(classify)
    classify.set_examples(make_media_examples(modality))
    expected = classify(items, top_k=None)
    assert len(first) > 0
    again = pipeline("tart-classification", model=folder, embedding_cache=tmp_path / "cache")
    second = count_forwards(again)
    again.set_examples(make_media_examples(modality))
    assert again(items, top_k=None) == expected
    assert second == []
    other = make_media(modality, 1, seed=2)[0]
    again([*items, other])
    assert len(second) > 0


@pytest.mark.slow
def test__embedding_cache__other_backbone__is_not_read(tmp_path: Path) -> None:
    scores = []
    for seed in (0, 1):
        backbone = widen(ViTForImageClassification(FAMILIES["vit"].config), seed)
        folder = save_media(tmp_path / str(seed), "vit", backbone)
        options: dict[str, Any] = {"examples": make_media_examples("image"), "embedding_cache": tmp_path / "cache"}
        classify = pipeline("tart-classification", model=folder, **options)
        plain = pipeline("tart-classification", model=folder, examples=options["examples"])
        scores.append(classify(make_media("image", 3), top_k=None))
        assert scores[-1] == plain(make_media("image", 3), top_k=None)
    assert scores[0] != scores[1]


@pytest.mark.slow
def test__embedding_cache__backbone_saved_without_its_pooler__is_read_by_the_second_run(tmp_path: Path) -> None:
    """As google/vit-base-patch16-224 is; transformers draws the pooler anew, and nothing is read of it."""
    torch.manual_seed(0)
    folder = save_media(tmp_path / "base", "vit", widen(ViTForImageClassification(FAMILIES["vit"].config)))
    counts, answers = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        classify = pipeline("tart-classification", model=folder, embedding_cache=tmp_path / "cache")
        counts.append(count_forwards(classify))
        classify.set_examples(make_media_examples("image"))
        answers.append(classify(make_media("image", 3), top_k=None))
    assert answers[0] == answers[1]
    assert counts[0]
    assert not counts[1]


def test__embedding_cache__bad_inputs__others_are_kept(fitted: dict[str, Fitted], tmp_path: Path) -> None:
    folder = shutil.copytree(fitted["image"].classify.model.config.base_model_name_or_path, tmp_path / "base")
    examples, items = make_media_examples("image"), [*fitted["image"].items, *BAD["image"].values()]
    classify = pipeline("tart-classification", model=str(folder), examples=examples, embedding_cache=tmp_path / "c")
    calls = count_forwards(classify)
    found = classify(items, top_k=None)
    assert found[:6] == fitted["image"].expected
    calls.clear()
    assert [r[0]["label"] for r in classify(items, top_k=None)] == [r[0]["label"] for r in found]
    assert calls == []
