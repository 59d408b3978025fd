"""Recordings in every form a user may give them become the same samples; what is none is refused by its place."""

import base64
import sys
import threading
import wave
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from helpers.builders import SHARED
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart.inputs import Waveform, read_audio


pytestmark = pytest.mark.core


RATE = 8000
SINE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 2) / RATE)).astype(np.float32)
PCM = np.rint(SINE * 32768).astype(np.int16)
SAMPLES = (PCM / 32768).astype(np.float32)  # what every form of the recording holds


def write_wave(levels: np.ndarray, rate: int = RATE, width: int = 2, channels: int = 1) -> bytes:
    """A wav file of integers in -1 to 1 times the range of their width, by the standard library."""
    scaled = levels.astype(np.float64) * 2 ** (8 * width - 1)
    integers = np.clip(np.rint(scaled), -(2.0 ** (8 * width - 1)), 2.0 ** (8 * width - 1) - 1).astype("<i8")
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", "NONE"))
        file.writeframes((integers + (128 if width == 1 else 0)).view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    return content.getvalue()


def read(value: object, sampling_rate: int = RATE, **options: object) -> np.ndarray:
    """The samples of a value, checked for their form."""
    samples = read_audio(value, "Input 3", sampling_rate, **options)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert samples.flags.c_contiguous
    return samples


def decoder(data: object, rate: int = RATE) -> object:
    """What is used of a torchcodec AudioDecoder."""
    return SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=data, sample_rate=rate))


WAV = write_wave(SAMPLES)
TENSOR = torch.from_numpy(SAMPLES)
# the same recording in every form but files
FORMS = {
    "data_url": "data:audio/wav;base64," + base64.b64encode(WAV).decode(),
    "bytes": WAV,
    "array": SAMPLES,
    "array_of_float64": SAMPLES.astype(np.float64),
    "array_of_int16": PCM,
    "array_of_int32": PCM.astype(np.int32) * 65536,
    "array_of_uint16": (PCM.astype(np.int32) + 32768).astype(np.uint16),
    "array_with_a_channel_axis": SAMPLES[None],
    "array_with_a_last_channel_axis": SAMPLES[:, None],
    "array_of_stereo": np.stack([SAMPLES * 0.5, SAMPLES * 1.5]),
    "array_of_stereo_int16": np.stack([PCM, PCM], 1),
    "tensor": TENSOR,
    "tensor_with_gradient": TENSOR.clone().requires_grad_(),
    "tensor_of_int16": torch.from_numpy(PCM),
    "waveform": Waveform(SAMPLES, RATE),
    "dict_of_array": {"array": SAMPLES, "sampling_rate": RATE, "path": "elsewhere.wav"},
    "dict_of_raw": {"raw": TENSOR, "sampling_rate": np.array(RATE)},
    "dict_of_bytes": {"bytes": WAV, "path": "elsewhere.wav"},  # no longer there
    "decoder_of_stereo": decoder(torch.stack([TENSOR, TENSOR])),
    "dict": {"audio": SAMPLES},
    "dict_of_decoder": {"audio": decoder(TENSOR[None])},
    "dict_in_a_dict": {"audio": {"array": SAMPLES, "sampling_rate": RATE}},
    "dict_of_bytes_in_a_dict": {"audio": {"bytes": WAV, "path": None}},
}


@pytest.fixture(params=["soundfile", "wave"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that decodes: soundfile, and the standard library where it is missing."""
    if request.param == "wave":
        monkeypatch.setitem(sys.modules, "soundfile", None)
    else:
        pytest.importorskip("soundfile", reason="needs soundfile, which is not installed")
    return request.param


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Address of a server of the recording at /sound.wav."""
    (tmp_path / "sound.wav").write_bytes(WAV)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test__read_audio__every_form__same_samples(value: object) -> None:
    assert np.allclose(read(value), SAMPLES, atol=1e-7)


def test__read_audio__file__same_samples(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(WAV)
    table = Dataset.from_dict({"audio": [{"bytes": None, "path": str(path)}, {"bytes": WAV, "path": None}]})
    rows = list(table.cast_column("audio", Audio(decode=False)))
    assert rows[0]["audio"]["bytes"] is None
    for value in (path, str(path), {"path": path}, rows[0], rows[1], rows[0]["audio"], rows[1]["audio"]):
        assert np.array_equal(read(value), SAMPLES)


def test__read_audio__url__same_samples(server: str) -> None:
    assert np.array_equal(read(f"{server}/sound.wav"), SAMPLES)
    assert np.array_equal(read({"bytes": None, "path": f"{server}/sound.wav"}), SAMPLES)
    with pytest.raises(OSError, match="^Input 3 cannot be fetched from its URL"):
        read(f"{server}/absent")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 9])
def test__read_audio__wav_of_any_width__same_samples(library: str, width: int, channels: int) -> None:
    shares = np.arange(1, channels + 1) / (channels + 1)  # different channels, of which the mean is half
    samples = read(write_wave(np.outer(SAMPLES, shares).ravel(), width=width, channels=channels))
    assert np.allclose(samples, SAMPLES / 2, atol=max(2.0 ** (1 - 8 * width), 1e-7))


@pytest.mark.parametrize(
    ("kind", "subtype", "closeness"),
    [("WAV", "FLOAT", 0), ("WAV", "DOUBLE", 0), ("FLAC", "PCM_16", 0), ("OGG", "VORBIS", 0.05), ("MP3", None, 0.05)],
)
def test__read_audio__kind_of_file_in_blocks__same_samples(
    kind: str, subtype: str | None, closeness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile, which is not installed")
    content = BytesIO()
    soundfile.write(content, np.stack([SAMPLES, SAMPLES], 1), RATE, format=kind, subtype=subtype)
    monkeypatch.setattr("transformers_tart.inputs.audio.FRAMES_PER_BLOCK", 999)
    samples = read(content.getvalue())
    assert np.abs(samples[: len(SAMPLES)] - SAMPLES).mean() <= closeness


def test__read_audio__without_soundfile__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    floats = WAV[:20] + b"\3" + WAV[21:]
    wide = WAV[:34] + b"\x40" + WAV[35:]  # 64 bits
    for data in (floats, wide, b"fLaC" + bytes(60), b"ID3", bytes(200)):
        with pytest.raises(ImportError, match=r'^Input 3 .*pip install "transformers-tart\[audio\]"'):
            read(data)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (16000, 8000), (44100, 16000), (11025, 48000)])
@pytest.mark.parametrize("kind", ["dict", "file"])
def test__read_audio__other_rate__same_pitch_and_duration(rate: int, wanted: int, kind: str) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples = read({"array": sine, "sampling_rate": rate} if kind == "dict" else write_wave(sine, rate), wanted)
    assert len(samples) == wanted  # a second
    assert np.abs(np.fft.rfft(samples)).argmax() == 440  # in Hz, for it is a second
    assert samples[100:-100].max() == pytest.approx(0.5, abs=0.01)


def test__read_audio__lower_rate__no_aliases() -> None:
    high = np.sin(2 * np.pi * 3300 * np.arange(8000) / 8000)
    assert np.abs(read({"array": high, "sampling_rate": 8000}, 4000)[100:-100]).max() < 0.01


def test__read_audio__array_without_rate__at_the_wanted_or_assumed() -> None:
    assert np.array_equal(read(SAMPLES, 16000), SAMPLES)
    expected = read({"array": SAMPLES, "sampling_rate": RATE}, 16000)
    assert len(expected) == 2 * len(SAMPLES)
    assert np.array_equal(read(SAMPLES, 16000, assumed_rate=RATE), expected)
    assert np.array_equal(read(WAV, 16000, assumed_rate=3), expected)


def test__read_audio__short_or_square__channels_as_documented() -> None:
    assert read(np.float32([[0.1, 0.3], [0.5, 0.7]])) == pytest.approx([0.3, 0.5])
    assert read(np.float32([[0.1, 0.3], [0.5, 0.7], [0.0, 1.0]])) == pytest.approx([0.2, 0.6, 0.5])
    assert read(decoder(torch.tensor([[0.1], [0.5]]))) == pytest.approx([0.3])
    assert read(np.int16([-32768, 0, 16384])).tolist() == [-1, 0, 0.5]
    assert read(np.uint8([0, 128, 192])).tolist() == [-1, 0, 0.5]
    assert read(torch.tensor([-1, 0, 0.5], dtype=torch.bfloat16)).tolist() == [-1, 0, 0.5]


def test__read_audio__a_little_out_of_range__as_it_is() -> None:
    array = np.array([1.25, -1.5], dtype=np.float32)
    samples = read(array)
    array[:] = 0  # which is no matter of what was read
    assert samples.tolist() == [1.25, -1.5]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(0), "no samples"),
        (torch.zeros(2, 0), "no samples"),
        (np.zeros(()), r"the shape \(\)"),
        (np.zeros((600, 1000)), "more than 8 channels; give one recording at a time"),
        (np.array([0.1, np.nan]), "NaN"),
        (np.array([0.1, -np.inf]), "infinite"),
        (PCM.astype(np.float32), "divide 16 bit integers by 32768"),
        (np.array([1e300]), "divide 16 bit integers by 32768"),
        (PCM.astype(np.int64), r"int64, .*astype\('int16'\)"),
        ({"array": SAMPLES}, '"sampling_rate"'),
        ({"array": SAMPLES, "raw": SAMPLES, "sampling_rate": RATE}, '"array" or "raw"'),
        ({"audio": SAMPLES, "label": 1}, r"the keys \['audio', 'label'\]; give \"audio\" alone"),
        ({}, "the keys"),
        ({"bytes": None, "path": None}, "neither bytes nor a path"),
        (b"", "empty file; leave it out"),
        ("data:audio/wav;base64,aaa", "not base64; give"),
        (decoder(torch.zeros(1, 0)), "no samples"),
        (SimpleNamespace(get_all_samples=lambda: torch.zeros(2) @ torch.zeros(3)), "an AudioDecoder that fails"),
    ],
)
def test__read_audio__no_recording__value_error(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Input 3 .*{message}"):
        read(value)


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99), bytes(range(256)), b"hello", WAV[:30]]
)
def test__read_audio__video_or_other_file__value_error(data: bytes) -> None:
    pytest.importorskip("soundfile", reason="needs soundfile, which is not installed")
    with pytest.raises(ValueError, match="^Input 3 is no audio file .*; give a wav, flac, ogg or mp3 file"):
        read(data)


def test__read_audio__file_without_samples__value_error(library: str) -> None:
    with pytest.raises(ValueError, match="^Input 3 .*leave it out"):
        read(write_wave(np.zeros(0)))


def test__read_audio__file_with_wild_floats__value_error() -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs soundfile, which is not installed")
    for level, message in ((float("nan"), "NaN"), (300.0, "up to 300")):
        content = BytesIO()
        soundfile.write(content, np.full(9, level), RATE, format="WAV", subtype="FLOAT")
        with pytest.raises(ValueError, match=f"^Input 3 has samples .*{message}"):
            read(content.getvalue())


@pytest.mark.parametrize("rate", [0, -8000, 8000.0, 8000.5, "8000", None, True, float("nan"), 10**12, [8000]])
def test__read_audio__rate_not_a_positive_integer__value_error(rate: object) -> None:
    with pytest.raises(ValueError, match="^Input 3 has the sampling rate"):
        read({"array": SAMPLES, "sampling_rate": rate})
    with pytest.raises(ValueError, match="^Input 3 is wanted at the sampling rate"):
        read(SAMPLES, rate)
    if rate is not None:
        with pytest.raises(ValueError, match="^Input 3 is assumed to be at the sampling rate"):
            read(SAMPLES, assumed_rate=rate)


@pytest.mark.parametrize("value", [None, 3, [0.1], BytesIO(WAV), SAMPLES > 0, SAMPLES * 1j, {"array": [0.1]}])
def test__read_audio__other_type__type_error(value: object) -> None:
    value = {**value, "sampling_rate": RATE} if isinstance(value, dict) else value
    with pytest.raises(TypeError, match="^Input 3 "):
        read(value)


def test__read_audio__missing_file__file_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.wav", str(tmp_path / "absent.wav"), {"path": "/absent.wav"}):
        with pytest.raises(FileNotFoundError, match="^Input 3 is not at the path '.*absent.wav'"):
            read(path)


@given(st.binary(max_size=60) | st.integers(0, 60).map(lambda i: WAV[:i] + bytes([WAV[i] ^ 255]) + WAV[i:]))
def test__read_audio__damaged_bytes__value_error_or_samples(data: bytes) -> None:
    pytest.importorskip("soundfile", reason="needs soundfile, which is not installed")
    try:
        assert len(read(data)) > 0
    except ValueError as err:
        assert str(err).startswith("Input 3 ")  # noqa: PT017


def test__read_audio__real_digits__every_form_alike(library: str) -> None:
    path = SHARED / "data" / "fsdd.npz"
    if not path.exists():
        pytest.skip("needs the sample of spoken digits, which is absent here")
    data, rate = np.load(path), 8000
    for spoken, length in zip(data["audio"][::60], data["length"][::60], strict=True):
        digit = spoken[:length]
        expected = read({"array": digit, "sampling_rate": rate}, 16000)
        assert len(expected) == 2 * length
        assert 0.01 < np.abs(expected).max() < 1.1
        assert np.array_equal(read(write_wave(digit / 32768, rate), 16000), expected)
        assert np.allclose(read(torch.from_numpy(digit / 32768), 16000, assumed_rate=rate), expected, atol=1e-6)
